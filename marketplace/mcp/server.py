"""The server itself: tools, one form for all errors, and stdio."""

from __future__ import annotations

from contextlib import nullcontext
from importlib.metadata import version
from typing import Any, Final

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import CallToolResult, InputRequiredResult
from pydantic import ValidationError

from marketplace.mcp import tools
from marketplace.mcp.clerk import Clerk
from marketplace.mcp.refusals import misworded, refusal
from marketplace.protocol.errors import WattError

_INSTRUCTIONS: Final = (
    "Buys inference from a market, at a price known before. Ask budget() what may be spent, search_models() "
    "what is on offer, quote() what a request costs at most, then run() it. A failure costs nothing: every "
    "error says whether it was charged, and what helps. job() tells what became of a call that was cut off."
)


class WattServer(MCPServer[Clerk]):
    """An MCP server whose errors are ours: code, hint and charge, as structured content."""

    def __init__(self, clerk: Clerk) -> None:
        super().__init__(
            "wattline",
            title="Wattline",
            instructions=_INSTRUCTIONS,
            version=version("wattline"),
            lifespan=lambda _: nullcontext(clerk),
            log_level="WARNING",
        )
        tools.register(self)

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[Clerk, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        """Result of a tool, or what went wrong with it."""
        try:
            return await super().call_tool(name, arguments, context)
        except ToolError as error:
            match error.__cause__:
                case WattError() as known:
                    return refusal(known)
                case ValidationError() as invalid:
                    return misworded(invalid)
            raise
