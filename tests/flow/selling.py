"""A node that sells to payers without a key, and what they say."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.flow.gateway import Clock, Gateway, gateway
from tests.flow.node import Node, chat_body
from tests.flow.paying import header, install


@contextlib.asynccontextmanager
async def selling(
    folder: Path, behaviour: Any = None, clock: Clock | None = None
) -> AsyncIterator[tuple[Gateway, Node]]:
    """A gateway that takes payments, and a node that sells through it."""
    async with gateway(folder, clock=clock) as g:
        install(g)
        async with Node(g, 1, g.put_node(1), behaviour) as node:
            yield g, node


async def ask(g: Gateway, **changes: Any) -> Any:
    """A call without a payment."""
    return await g.http.post("/v1/chat/completions", json=chat_body(**changes))


async def pay(g: Gateway, data: Any, **changes: Any) -> Any:
    """The call with a payment."""
    return await g.http.post("/v1/chat/completions", json=chat_body(**changes), headers=header(data))
