"""What the tools need of a market, whether a buyer's own key signs there or a gateway's bearer key pays."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, Protocol

from marketplace.client.asks import DEFAULT_MAX_TOKENS, Ask, chat_ask, embed_ask, task_ask
from marketplace.client.quotes import Quote
from marketplace.client.verify import Check
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.money import format_atoms, parse_atoms

STEPS: Final = 3


class Step(IntEnum):
    """How far a job is."""

    ORDERED = 1
    RUNNING = 2
    DELIVERED = 3


Told = Callable[[Step, str], Awaitable[None]]
"""Hears each step of a job, with the job's id where it is known yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Currency:
    """The token amounts are told in."""

    symbol: str
    decimals: int

    def bare(self, atoms: int) -> str:
        """Decimal amount, as in `0.000131`."""
        return format_atoms(atoms, self.decimals)

    def show(self, atoms: int) -> str:
        """Amount with its symbol, as in `0.000131 TUSD`."""
        return f"{self.bare(atoms)} {self.symbol}"

    def atoms(self, amount: str) -> int:
        """Atoms of a decimal amount. Raises `BadRequest`."""
        return parse_atoms(amount, self.decimals)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """One request, before it is known which node does it; `fields` are those of the task's payload.

    `model_id` is the very model that was quoted, whatever it is asked for by; None: what the name means.
    """

    model: str
    task: str
    fields: Mapping[str, Any]
    model_id: str | None = None

    def ask(self, **limits: Any) -> Ask:
        """The same for the SDK, checked. Raises `BadRequest`."""
        fields = dict(self.fields)
        if self.task == "chat":
            return chat_ask(fields.pop("messages"), model=self.model, **fields, **limits)
        if self.task == "embed":
            return embed_ask(fields["input"], model=self.model, **limits)
        return task_ask(fields, task=self.task, model=self.model, **limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """What one purchase may cost, and who may do it; no `node_id`: any node.

    The same `once` is the same purchase, where the market can tell.
    """

    most_atoms: int
    node_id: int | None = None
    once: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bought:
    """A delivered job. Of `text`, `vectors` and `answer` the one that its task gives is set."""

    text: str | None = None
    finish: str | None = None
    vectors: list[list[float]] | None = None
    answer: dict[str, Any] | None = None
    job_id: str
    receipt_id: str
    node_id: int
    model_id: str
    cost_atoms: int
    ceiling_atoms: int
    units_in: int
    units_out: int
    energy_millijoules: int
    checks: Sequence[Check]


@dataclass(frozen=True, slots=True, kw_only=True)
class Purse:
    """What the key can still pay; None where nothing bounds it. `expires_at` is Unix seconds."""

    left_atoms: int
    in_sessions_atoms: int
    per_session_atoms: int | None = None
    expires_at: int | None = None


class Shop(Protocol):
    """A market to buy from with one key. Every call may raise `WattError`."""

    @property
    def currency(self) -> Currency:
        """The token of every amount."""

    def now_ms(self) -> int:
        """Unix milliseconds, by the clock that offers end by."""

    async def models(self) -> list[dict[str, Any]]:
        """Rows of `GET /v1/models`."""

    async def quotes(self, wish: Wish) -> list[Quote]:
        """Ranked quotes. Charges nothing."""

    async def buy(self, wish: Wish, limit: Limit, told: Told) -> Bought:
        """Has it done and pays for it. Cancelled: the job ends, and only what it delivered is paid."""

    async def job(self, job_id: str) -> dict[str, Any]:
        """A job as `GET /v1/jobs/{id}` tells it."""

    async def receipt(self, receipt_id: str) -> dict[str, Any]:
        """The bundle of a receipt."""

    async def checks(self, bundle: dict[str, Any]) -> list[Check]:
        """Every check of a bundle; those that could not be made here have no outcome."""

    async def purse(self) -> Purse:
        """What the key can still pay."""


def wish_of(
    *,
    model: str,
    prompt: str | None = None,
    messages: Sequence[Mapping[str, str]] | None = None,
    texts: str | Sequence[str] | None = None,
    task: str | None = None,
    fields: Mapping[str, Any] | None = None,
    max_tokens: int | None = None,
) -> Wish:
    """A request as a caller words it.

    Raises:
        BadRequest: none or several of prompt, messages, input and fields, or a value out of its range.
    """
    given = [prompt, messages, texts, fields]
    if given.count(None) != len(given) - 1:
        raise BadRequest(
            ErrorCode.INVALID_REQUEST,
            "Give one of prompt, messages, input and fields.",
            hint="prompt or messages for text, input for embeddings, task and fields for any other task.",
        )
    if fields is not None:
        wish = Wish(model=model, task=task or "", fields=fields)
    elif texts is not None:
        wish = Wish(model=model, task="embed", fields={"input": [texts] if isinstance(texts, str) else texts})
    else:
        turns = [{"role": "user", "content": prompt}] if prompt is not None else messages
        body = {"messages": turns, "max_tokens": max_tokens or DEFAULT_MAX_TOKENS}
        wish = Wish(model=model, task="chat", fields=body)
    wish.ask()
    return wish
