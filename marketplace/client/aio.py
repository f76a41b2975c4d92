"""`AsyncWattline`: buy inference, verify it, pay for it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Literal, Required, Self, TypedDict, Unpack, overload

from marketplace.client.anchors import check_on_chain
from marketplace.client.asks import Ask, Heard, chat_ask, embed_ask, task_ask
from marketplace.client.books import Books
from marketplace.client.bundle import Bundle
from marketplace.client.callbook import Budget, Once, Spending
from marketplace.client.desk import Desk, threaded
from marketplace.client.envelope import opened_bundle
from marketplace.client.journal import Session
from marketplace.client.opening import Opening, open_desk
from marketplace.client.payer import Payer
from marketplace.client.problems import GatewayTrouble
from marketplace.client.quotes import Quote
from marketplace.client.results import ChatResult, EmbedResult, TaskResult
from marketplace.client.sessions import SessionPolicy, SessionPool
from marketplace.client.verify import Check, check_offline
from marketplace.client.visits import visit_header
from marketplace.client.work import Done, Piece, Work
from marketplace.protocol.hexes import from_hex, to_hex
from marketplace.protocol.money import format_atoms, parse_atoms
from marketplace.protocol.payloads import task_type
from marketplace.protocol.signing import Signer


class Limits(TypedDict, total=False):
    """What every job may be told: `max_cost` in token units as text, a node, seconds until it is free.

    The same `idempotency_key` is the same job for a day: asked again, also by another process with the same
    journal, it gives the answer of its one order. `model_id` is what the model's name must stand for. `heard`
    is awaited with each event of the job: signed, taken, its chunks, its receipt.
    """

    max_cost: str | None
    node: int | None
    timeout_seconds: int
    idempotency_key: str | None
    model_id: str | None
    heard: Heard | None


class ChatOptions(Limits, total=False):
    """How to generate; `model` is a name or an `0x…` id."""

    model: Required[str]
    max_tokens: int
    temperature: float
    top_p: float
    seed: int | None
    stop: Sequence[str]
    logprobs: int | None


Messages = str | Sequence[Mapping[str, str]]


class AsyncChatStream:
    """Pieces of text as they are generated; `result` once they have ended."""

    def __init__(self, pieces: AsyncGenerator[str | ChatResult, None]) -> None:
        self._pieces = pieces
        self._result: ChatResult | None = None

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        piece = await anext(self._pieces)
        if isinstance(piece, ChatResult):
            self._result = piece
            return await self.__anext__()
        return piece

    @property
    def result(self) -> ChatResult:
        """The verified result; only after the last piece."""
        if self._result is None:
            raise RuntimeError("the stream has not ended; read it to its end first")
        return self._result

    async def aclose(self) -> None:
        """Stops reading; the node is still paid for what it delivers by the deadline."""
        await self._pieces.aclose()


class AsyncWattline:
    """One buyer key at one gateway.

    Args:
        desk: the key's workplace; `open` makes one.
        buyer: pays for sessions and signs their opening; None where others open them for the key.
        payer: a key that opens them from its buyer's account, in place of `buyer`.
    """

    def __init__(
        self,
        desk: Desk,
        *,
        buyer: Signer | None = None,
        payer: Payer | None = None,
        policy: SessionPolicy | None = None,
    ) -> None:
        self.desk = desk
        own = None if buyer is None else Payer.own(buyer)
        self.pool = SessionPool(desk, payer or own, policy or SessionPolicy())
        self.work = Work(desk, self.pool, Books(desk))

    @classmethod
    async def open(cls, **how: Unpack[Opening]) -> Self:
        """A client for a deployment file; the key is its own buyer unless a buyer or a grant is named.

        Raises:
            ChainTrouble: the RPC does not answer, or is of another chain.
            BadRequest: no deployment file, or the key was revoked.
        """
        desk, payer = await open_desk(how)
        return cls(desk, payer=payer, policy=how.get("policy"))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes connections and journal."""
        await self.desk.gateway.aclose()
        self.desk.journal.close()

    async def set_budget(self, amount: str, *, name: str = "sdk") -> Spending:
        """From here on no order is signed that could take all jobs under this name above an amount.

        The journal counts them, so that a process that starts again goes on from what is spent.
        """
        atoms = parse_atoms(amount, self.desk.deployment.token_decimals)
        self.work.ordering.budget = Budget(name=name, limit_atoms=atoms)
        return await self.spending()

    async def spending(self) -> Spending:
        """What was spent under the budget; without one, nothing is counted."""
        return self.work.ordering.spending()

    async def models(self) -> list[dict[str, Any]]:
        """Models on offer, as `GET /v1/models` lists them."""
        return _rows(await self.desk.gateway.get("/v1/models"))

    async def nodes(self) -> list[dict[str, Any]]:
        """Nodes of the market, as `GET /v1/nodes` lists them."""
        return _rows(await self.desk.gateway.get("/v1/nodes"))

    async def quote(self, messages: Messages, **options: Unpack[ChatOptions]) -> list[Quote]:
        """Ranked quotes for a generation. Charges nothing."""
        ask = self._limited(chat_ask, messages, options)
        return await self.work.ordering.quotes(ask, options.get("max_cost"))

    async def quote_embed(
        self, texts: str | Sequence[str], *, model: str, **limits: Unpack[Limits]
    ) -> list[Quote]:
        """Ranked quotes for embeddings. Charges nothing."""
        ask = self._limited(embed_ask, texts, {"model": model, **limits})
        return await self.work.ordering.quotes(ask, limits.get("max_cost"))

    async def embed(self, texts: str | Sequence[str], *, model: str, **limits: Unpack[Limits]) -> EmbedResult:
        """Vectors for texts.

        Raises:
            WattError: nobody did it; nothing was charged unless the error says so.
        """
        done = await self._done(self._limited(embed_ask, texts, {"model": model, **limits}), limits)
        return EmbedResult(vectors=done.answer.floats(), **self._paid(done))

    async def ask(
        self, task: str, body: Mapping[str, Any], *, model: str, **limits: Unpack[Limits]
    ) -> TaskResult:
        """Any task by name, such as `classify`; `body` has the fields of its payload.

        Raises:
            WattError: nobody did it; nothing was charged unless the error says so.
        """
        ask = self._limited(task_ask, body, {"task": task, "model": model, **limits})
        done = await self._done(ask, limits)
        answer = done.answer
        return TaskResult(answer=task_type(task).shown(answer), rows=answer.rows, **self._paid(done))

    async def quote_task(
        self, task: str, body: Mapping[str, Any], *, model: str, **limits: Unpack[Limits]
    ) -> list[Quote]:
        """Ranked quotes for any task. Charges nothing."""
        ask = self._limited(task_ask, body, {"task": task, "model": model, **limits})
        return await self.work.ordering.quotes(ask, limits.get("max_cost"))

    @overload
    async def chat(
        self, messages: Messages, *, stream: Literal[False] = False, **options: Unpack[ChatOptions]
    ) -> ChatResult: ...
    @overload
    async def chat(
        self, messages: Messages, *, stream: Literal[True], **options: Unpack[ChatOptions]
    ) -> AsyncChatStream: ...
    async def chat(
        self, messages: Messages, *, stream: bool = False, **options: Unpack[ChatOptions]
    ) -> ChatResult | AsyncChatStream:
        """Generated text, whole or as a stream.

        A stream shows text before its receipt is verified; it ends with an error when that does not hold.

        Raises:
            WattError: nobody did it; nothing was charged unless the error says so.
        """
        ask = self._limited(chat_ask, messages, options)
        answer = AsyncChatStream(self._chat(ask, options, streamed=stream))
        if stream:
            return answer
        async for _ in answer:
            pass
        return answer.result

    async def job(self, job_id: str) -> dict[str, Any]:
        """A job as `GET /v1/jobs/{id}` tells it."""
        return await self.desk.gateway.get(f"/v1/jobs/{job_id}")

    async def cancel(self, job_id: str) -> dict[str, Any]:
        """Ends a running job with what it has delivered; only that is paid. Gives the job; idempotent."""
        return await self.desk.gateway.post(f"/v1/jobs/{job_id}/cancel", {})

    async def jobs(self, *, limit: int = 20, after: str | None = None) -> list[dict[str, Any]]:
        """This key's jobs, newest first."""
        params = {"limit": str(limit), **({"after": after} if after else {})}
        headers = visit_header(self.desk.key, self.desk.domain, self.desk.now_ms())
        return _rows(await self.desk.gateway.get("/v1/jobs", params=params, headers=headers))

    async def receipt(self, receipt_id: str) -> dict[str, Any]:
        """The offline bundle of a receipt, as the gateway has it; what this key sealed is opened.

        Raises:
            BadRequest: another key sealed it.
        """
        found = await self.desk.gateway.get(f"/v1/receipts/{receipt_id}")
        return opened_bundle(found, self.desk.key, self.desk.domain)

    async def verify(self, receipt: dict[str, Any]) -> list[Check]:
        """Every check of a bundle, the chain's too.

        Raises:
            BadRequest: no bundle.
            ChainTrouble: the chain does not answer.
        """
        bundle = Bundle.from_json(receipt)
        on_chain = await threaded(check_on_chain, bundle, self.desk.chain, self.desk.domain)
        return [*check_offline(bundle), *on_chain]

    async def sessions(self) -> list[Session]:
        """Open sessions of this key, as the chain has them."""
        return await self.pool.sessions()

    async def open_session(
        self, node_id: int, amount: str, *, key: str | None = None, lifetime_seconds: int | None = None
    ) -> Session:
        """Sets money aside for one node, for this key or another; waits for the chain."""
        atoms = parse_atoms(amount, self.desk.deployment.token_decimals)
        return await self.pool.open(node_id, atoms, key=key, lifetime_seconds=lifetime_seconds)

    async def top_up(self, session_id: str, amount: str) -> Session:
        """Adds money to a session; waits for the chain."""
        atoms = parse_atoms(amount, self.desk.deployment.token_decimals)
        return await self.pool.top_up(from_hex(session_id, 32), atoms)

    async def create_key(
        self,
        label: str = "",
        *,
        models: Sequence[str] = (),
        budget: str | None = None,
        expires_at: int | None = None,
    ) -> dict[str, Any]:
        """A gateway-held key and its bearer secret: `{api_key, address}`. It has no money yet.

        Its gateway holds it to `models` (as `tiny-*`), to a `budget` in token units, and to its time.
        """
        limits = {"models": list(models), "budget": budget, "expires_at": expires_at}
        return await self.desk.gateway.post("/v1/keys", {"label": label} | limits)

    async def _chat(
        self, ask: Ask, limits: Mapping[str, Any], *, streamed: bool
    ) -> AsyncGenerator[str | ChatResult, None]:
        run = self.work.run(ask, limits.get("max_cost"), streamed=streamed, once=_once(ask, limits))
        async with aclosing(run) as told:
            async for item in told:
                if isinstance(item, Piece) and item.text:
                    yield item.text
                elif isinstance(item, Done):
                    done, answer = self._paid(item), item.answer
                    rows = answer.logprobs
                    yield ChatResult(text=answer.text, finish=answer.finish or "", logprobs=rows, **done)

    async def _done(self, ask: Ask, limits: Mapping[str, Any]) -> Done:
        run = self.work.run(ask, limits.get("max_cost"), once=_once(ask, limits))
        async with aclosing(run) as told:
            async for item in told:
                if isinstance(item, Done):
                    return item
        raise GatewayTrouble("the gateway ended without a result")

    def _limited(self, make: Any, what: Any, options: Mapping[str, Any]) -> Ask:
        rest = {name: value for name, value in options.items() if name != "idempotency_key"}
        cost, node, seconds = (
            rest.pop("max_cost", None),
            rest.pop("node", None),
            rest.pop("timeout_seconds", 120),
        )
        atoms = None if cost is None else parse_atoms(cost, self.desk.deployment.token_decimals)
        ask: Ask = make(what, max_cost_atoms=atoms, node_id=node, timeout_ms=seconds * 1000, **rest)
        return ask

    def _paid(self, done: Done) -> dict[str, Any]:
        bundle, receipt = done.bundle, done.bundle.receipt
        return {
            "job_id": bundle.job_id,
            "node_id": bundle.node_id,
            "model": done.model,
            "model_id": to_hex(bundle.offer.model_id),
            "trace_id": bundle.trace_id,
            "receipt_id": bundle.receipt_id,
            "cost_atoms": receipt.amount_atoms,
            "ceiling_atoms": done.ceiling_atoms,
            "cost": format_atoms(receipt.amount_atoms, self.desk.deployment.token_decimals),
            "currency": self.desk.deployment.token_symbol,
            "units_in": receipt.units_in,
            "units_out": receipt.units_out,
            "energy_millijoules": receipt.energy_millijoules,
            "bundle": bundle,
            "checks": done.checks,
            "acknowledged": done.acknowledged,
            "attempts": done.attempts,
            "faults": done.faults,
        }


def _once(ask: Ask, limits: Mapping[str, Any]) -> Once | None:
    name = limits.get("idempotency_key")
    return Once(name=str(name), fingerprint=ask.fingerprint) if name else None


def _rows(answer: dict[str, Any]) -> list[dict[str, Any]]:
    return list(answer.get("data") or [])
