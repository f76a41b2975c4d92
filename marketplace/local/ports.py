"""Ports on the loopback interface."""

from __future__ import annotations

import socket
from typing import Final

from marketplace.protocol.errors import BadRequest, ErrorCode

HOST: Final = "127.0.0.1"


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.create_server((HOST, 0)) as listener:
        return int(listener.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether we could listen there."""
    try:
        socket.create_server((HOST, port)).close()
    except OSError:
        return False
    return True


def choose(wanted: int | None, default: int) -> tuple[int, str]:
    """The port to listen on, and a word when it is not the one expected.

    Raises:
        BadRequest: a port that was asked for is taken.
    """
    if wanted is not None:
        if not is_free(wanted):
            detail = f"port {wanted} is taken; stop what listens there, or name another with --port"
            raise BadRequest(ErrorCode.INVALID_REQUEST, detail, port=wanted)
        return wanted, ""
    if is_free(default):
        return default, ""
    return free_port(), f"port {default} is taken"
