"""Streamable HTTP for a gateway: sessions of older clients, single exchanges of newer ones."""

from __future__ import annotations

from typing import Final

from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings

from marketplace.mcp.clerk import Clerk
from marketplace.mcp.server import WattServer

_MOST_SESSIONS: Final = 1_000
_IDLE_SECONDS: Final = 600


def manager_of(clerk: Clerk, *, max_body_bytes: int) -> StreamableHTTPSessionManager:
    """Serves HTTP requests while its `run()` is entered; once."""
    server = WattServer(clerk)
    server.streamable_http_app(
        max_request_body_size=max_body_bytes,
        max_sessions=_MOST_SESSIONS,
        session_idle_timeout=_IDLE_SECONDS,
        # A page that tricks a browser into calling us has no bearer key to spend.
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )
    return server.session_manager
