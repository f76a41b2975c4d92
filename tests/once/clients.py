"""Four ways to make one paid call, each with the retries it comes with."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2
from openai import APIError, AsyncOpenAI, OpenAI

from marketplace.chain.devkeys import HARDHAT_KEYS
from marketplace.client import BuyerWallet, Wattline
from marketplace.local.commands import CHAT_MODEL
from marketplace.local.market import Market

PROMPT: Final = "Write a long story about a lighthouse keeper and the sea."
SDK_KEY: Final = HARDHAT_KEYS[14]  # the market itself uses earlier ones
_TRIES: Final = 5
_SECONDS: Final = 150


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One logical call.

    Attributes:
        url: of the relay.
        named: under an idempotency key, where the client has not one of its own.
    """

    url: str
    market: Market
    data_dir: Path
    max_tokens: int
    streamed: bool = False
    named: bool = False

    def body(self) -> dict[str, Any]:
        """As OpenAI's clients send it."""
        messages = [{"role": "user", "content": PROMPT}]
        return {"model": CHAT_MODEL, "messages": messages, "max_tokens": self.max_tokens, "temperature": 0}

    def headers(self) -> dict[str, str]:
        """The caller's own key, where it names its calls."""
        return {"idempotency-key": uuid.uuid4().hex} if self.named else {}


# Gives the text it got, or None where it was told of an error and gave up.
Client = Callable[[Call], str | None]


def stock(call: Call) -> str | None:
    """`openai`, told nothing but where and with which key."""
    with OpenAI(base_url=f"{call.url}/v1", api_key=call.market.api_key) as openai:
        made: Any = openai.chat.completions.create
        try:
            if not call.streamed:
                return str(made(**call.body(), extra_headers=call.headers()).choices[0].message.content)
            chunks = made(**call.body(), stream=True, extra_headers=call.headers())
            return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        except (APIError, httpx2.TransportError):
            return None


def stock_async(call: Call) -> str | None:
    """The same, `AsyncOpenAI`."""
    return asyncio.run(_stock_async(call))


async def _stock_async(call: Call) -> str | None:
    async with AsyncOpenAI(base_url=f"{call.url}/v1", api_key=call.market.api_key) as openai:
        made: Any = openai.chat.completions.create
        try:
            if not call.streamed:
                answer = await made(**call.body(), extra_headers=call.headers())
                return str(answer.choices[0].message.content)
            chunks = await made(**call.body(), stream=True, extra_headers=call.headers())
            return "".join([c.choices[0].delta.content or "" async for c in chunks if c.choices])
        except (APIError, httpx2.TransportError):
            return None


def plain(call: Call) -> str | None:
    """`httpx2` in a loop, under one idempotency key."""
    return _looped(call, {"idempotency-key": uuid.uuid4().hex})


def silent(call: Call) -> str | None:
    """The same loop without a key: it does not say that it repeats itself, and pays again."""
    return _looped(call, {})


def sdk(call: Call) -> str | None:
    """Our SDK, with a key of its own."""
    place = call.market
    with Wattline.open(
        gateway_url=call.url,
        rpc_url=place.rpc_url,
        deployment=place.deployment,
        key=SDK_KEY,
        journal_path=call.data_dir / "once-buyer.db",
    ) as watt:
        options: dict[str, Any] = {"model": CHAT_MODEL, "max_tokens": call.max_tokens}
        if not call.streamed:
            return watt.chat(PROMPT, **options).text
        return "".join(watt.chat(PROMPT, stream=True, **options))


def fund_sdk(market: Market) -> None:
    """Gives the SDK's key an account."""
    wallet = BuyerWallet.open(key=SDK_KEY, rpc_url=market.rpc_url, deployment=Path(market.deployment))
    wallet.faucet("20")
    wallet.deposit("20")


def _looped(call: Call, headers: dict[str, str]) -> str | None:
    headers = headers | {"authorization": f"Bearer {call.market.api_key}"}
    body = call.body() | {"stream": call.streamed}
    with httpx2.Client(base_url=call.url, headers=headers, timeout=_SECONDS) as http:
        for _ in range(_TRIES):
            try:
                answer = http.post("/v1/chat/completions", json=body)
            except httpx2.TransportError:
                continue
            if answer.status_code < 500:
                return _text(answer, streamed=call.streamed)
    return None


def _text(answer: httpx2.Response, *, streamed: bool) -> str:
    if not streamed:
        return str(answer.json()["choices"][0]["message"]["content"])
    lines = [line.removeprefix("data: ") for line in answer.text.strip().split("\n\n")]
    chunks = [json.loads(line) for line in lines if line != "[DONE]"]
    return "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c.get("choices"))


CLIENTS: Final[dict[str, Client]] = {
    "openai": stock,
    "openai async": stock_async,
    "httpx2 with a key": plain,
    "wattline": sdk,
}
