"""OpenAI's routes for what this market does not sell: a clear answer instead of no page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from fastapi import APIRouter

from marketplace.openai.unsupported import UNSUPPORTED
from marketplace.protocol.errors import BadRequest, ErrorCode

_METHODS: Final = ["GET", "POST", "PUT", "PATCH", "DELETE"]


def routes() -> APIRouter:
    """Routes behind all others: what those answer never comes here."""
    router = APIRouter(include_in_schema=False)
    for path, instead in UNSUPPORTED.items():
        for pattern in (f"/v1/{path}", f"/v1/{path}/{{rest:path}}"):
            router.add_api_route(pattern, _refusing(path, instead), methods=_METHODS)
    return router


def _refusing(path: str, instead: str) -> Callable[[], Awaitable[None]]:
    async def refuse() -> None:
        raise BadRequest(ErrorCode.UNSUPPORTED, f"this is not done at /v1/{path}: {instead}")

    return refuse
