"""Files of calls, and a gateway that runs them turn by turn."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from openai import AsyncOpenAI

from marketplace.keeper.batches import BatchRunner
from marketplace.openai.batches import OVER
from tests.flow.gateway import Gateway
from tests.flow.node import Node, chat_body

CHAT, EMBED = "/v1/chat/completions", "/v1/embeddings"
# Of one line of `chat_line`: 10 for the job, 5 tokens in at 1, 2 out at 2.
COST = 19
_MOST_TURNS = 60


def chat_line(number: int, text: str = "Hi", **body: Any) -> dict[str, Any]:
    content = [{"role": "user", "content": text}]
    return {
        "custom_id": f"call-{number}",
        "method": "POST",
        "url": CHAT,
        "body": chat_body(messages=content, **body),
    }


def embed_line(number: int, *texts: str, **body: Any) -> dict[str, Any]:
    asked = {"model": "mini", "input": list(texts)} | body
    return {"custom_id": f"call-{number}", "method": "POST", "url": EMBED, "body": asked}


def jsonl(lines: Iterable[object]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def client_of(g: Gateway, secret: str) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{g.url}/v1", api_key=secret, max_retries=0, http_client=g.http)


async def started(client: AsyncOpenAI, lines: Iterable[object], endpoint: Any = CHAT, **more: Any) -> Any:
    """A batch of these lines, as the stock client makes one."""
    file = await client.files.create(file=("calls.jsonl", jsonl(lines)), purpose="batch")
    return await client.batches.create(
        input_file_id=file.id, endpoint=endpoint, completion_window="24h", **more
    )


async def turn(runner: BatchRunner, nodes: Iterable[Node]) -> None:
    """One turn, and whatever nodes do about it."""
    await runner.step()
    for node in nodes:
        if not node.closed.is_set():
            await node.calm()


async def finished(
    client: AsyncOpenAI, batch_id: str, runner: BatchRunner, nodes: Iterable[Node] = ()
) -> Any:
    """The batch once it is over."""
    for _ in range(_MOST_TURNS):
        await turn(runner, nodes)
        batch = await client.batches.retrieve(batch_id)
        if batch.status in OVER:
            return batch
    raise AssertionError(f"the batch is still {batch.status} after {_MOST_TURNS} turns")


async def lines_of(client: AsyncOpenAI, file_id: str | None) -> list[dict[str, Any]]:
    assert file_id is not None
    content = await client.files.content(file_id)
    return [json.loads(line) for line in content.text.splitlines()]
