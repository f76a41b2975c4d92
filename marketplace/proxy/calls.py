"""A body of OpenAI's into an ask of the SDK's, and what comes of it into OpenAI's answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError
from starlette.requests import Request

from marketplace.client.aio import AsyncWattline
from marketplace.client.asks import Ask
from marketplace.client.bundle import Bundle
from marketplace.client.callbook import Once
from marketplace.client.work import Began, Done, Piece
from marketplace.openai import answers, billing, money, requests
from marketplace.openai.completions import TextChunks
from marketplace.protocol.annex import read_annex
from marketplace.protocol.errors import BadRequest, ErrorCode, WattError
from marketplace.protocol.hexes import keccak
from marketplace.protocol.money import format_atoms, parse_atoms
from marketplace.protocol.payloads import (
    BLANK_MODEL,
    ChatPayload,
    Payload,
    build_payload,
    canonical_json,
    units_in_ceiling,
    units_out_ceiling,
)
from marketplace.proxy import problems
from marketplace.proxy.feed import Feed, Feeds

BUDGET_LEFT: Final = "x-watt-budget-left"
REPLAYED: Final = "idempotent-replayed"
# All that a quote for a call to be sealed may tell of it.
_TOLD: Final = ("model", "task", "units", "max_cost", "node")
SSE: Final = {"cache-control": "no-cache", "x-accel-buffering": "no"}
Shape = answers.ChatChunks | TextChunks


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What holds for every call: most it may cost in token units, its node, seconds until it is free."""

    max_cost: str | None = None
    node: int | None = None
    timeout_seconds: int = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Hints:
    """What a request says of itself: the caller's own key of the call, and whether it was sent before."""

    name: str = ""
    repeated: bool = False


class Proxy:
    """Buys for whoever asks, with one key."""

    def __init__(
        self,
        client: AsyncWattline,
        bounds: Bounds,
        *,
        on_paid: Callable[[Done], None] = lambda _: None,
        on_faults: Callable[[Sequence[Any]], None] = lambda _: None,
    ) -> None:
        self.client, self._bounds, self._feeds = client, bounds, Feeds(on_paid, on_faults)
        self._decimals = client.desk.deployment.token_decimals

    def recover(self) -> None:
        """Follows the orders of calls that a killed process left, so that they are verified and paid."""
        for call in self.client.work.unfinished():
            self._feeds.start(self.client.work.finish(call))

    async def aclose(self) -> None:
        """Waits a little for calls under way."""
        await self._feeds.aclose()

    def start(self, call: requests.Call, payload: Payload, hints: Hints, *, streamed: bool = False) -> Feed:
        """Buys, unless it is bought already: the same call again attaches to the order it has.

        Raises:
            BadRequest: it cannot be expressed, or its name stands for another call.
        """
        ask = self._ask(call, payload)
        asked = {"task": payload.task, "call": call.model_dump(mode="json")}
        once = Once(
            name=hints.name,
            repeated=hints.repeated,
            fingerprint=keccak(canonical_json(asked)).hex(),
        )
        most = None if ask.max_cost_atoms is None else format_atoms(ask.max_cost_atoms, self._decimals)
        return self._feeds.start(self.client.work.run(ask, most, streamed=streamed, once=once))

    def quote_body(self, body: dict[str, Any]) -> dict[str, Any]:
        """Body of a quote, inside the bounds; where calls are sealed it tells only how large this one is."""
        body = sized(body) if self.client.desk.seal else body
        atoms = self._most_atoms(body.get("max_cost"))
        most = {} if atoms is None else {"max_cost": format_atoms(atoms, self._decimals)}
        node = {"node": self._bounds.node} if self._bounds.node and not body.get("node") else {}
        return body | most | node

    def answered(self, task: str, done: Done) -> dict[str, Any]:
        """What every answer has beside OpenAI's own fields."""
        usage = billing.of_completion(task, *self._spent(done.bundle))
        return {"usage": usage, "job_id": done.bundle.job_id, "receipt": done.bundle.to_json()}

    def used_by_response(self, bundle: Bundle) -> dict[str, Any]:
        """`usage` of a response."""
        return billing.of_response(*self._spent(bundle))

    def headers(self, began: Began) -> dict[str, str]:
        """Headers of an answer."""
        headers = {"x-job-id": began.job_id} if began.job_id else {}
        if began.again:
            headers[REPLAYED] = "true"
        left = self.client.work.ordering.spending().left_atoms
        return headers if left is None else headers | {BUDGET_LEFT: format_atoms(left, self._decimals)}

    def budget(self) -> dict[str, Any]:
        """How the budget stands, in units and atoms, and how long it lasts."""
        found = self.client.work.ordering.spending()
        amounts = {"limit": found.limit_atoms, "spent": found.spent_atoms, "left": found.left_atoms}
        units = {name: None if a is None else format_atoms(a, self._decimals) for name, a in amounts.items()}
        atoms = {f"{name}_atoms": None if a is None else str(a) for name, a in amounts.items()}
        lasts = self.client.work.ordering.forecast().to_json()
        return {"currency": self.client.desk.deployment.token_symbol, **units, **atoms, "forecast": lasts}

    async def lines(
        self, feed: Feed, shape: Shape, item: Piece | Done, request_id: str
    ) -> AsyncIterator[str]:
        """A generation as OpenAI streams it; usage and receipt come with the last chunk."""
        for chunk in shape.opening(1):
            yield event(chunk)
        try:
            async for piece in feed.rest(item):
                if isinstance(piece, Done):
                    yield event(shape.end(0, piece.answer))
                    yield event(shape.last() | self.answered("chat", piece))
                else:
                    yield event(shape.text(0, piece))
        except WattError as error:
            yield event(problems.body_of(error, request_id))
        yield "data: [DONE]\n\n"

    def _spent(self, bundle: Bundle) -> tuple[billing.Spent, billing.Currency]:
        method, deployment = read_annex(bundle.annex).energy_method, self.client.desk.deployment
        most = bundle.order.max_amount_atoms
        used = billing.spent(bundle.receipt, ceiling_atoms=most, energy_method=method)
        return used, billing.Currency(decimals=deployment.token_decimals, symbol=deployment.token_symbol)

    def _ask(self, call: requests.Call, payload: Payload) -> Ask:
        own = [name for name in type(payload).model_fields if name not in Payload.model_fields]
        return Ask(
            task=payload.task,
            model=call.model,
            body={name: getattr(payload, name) for name in own},
            max_cost_atoms=self._most_atoms(call.max_cost),
            node_id=call.node or self._bounds.node,
            timeout_ms=self._bounds.timeout_seconds * 1000,
        )

    def _most_atoms(self, asked: Any) -> int | None:
        """The lower of what a call allows itself and what every call is allowed."""
        bound = self._bounds.max_cost
        found = [] if bound is None else [parse_atoms(bound, self._decimals)]
        found += [] if asked is None else [money.to_atoms(asked, self._decimals, "max_cost")]
        return min(found, default=None)


def only_choice(payloads: Sequence[ChatPayload], call: requests.Choices) -> ChatPayload:
    """The request of a call of one choice. Raises `BadRequest` for more."""
    if len(payloads) != 1:
        raise BadRequest(ErrorCode.UNSUPPORTED, "one prompt and one choice a call: n must be 1", param="n")
    return unseeded(payloads[0], call.seed)


def unseeded(payload: ChatPayload, seed: int | None) -> ChatPayload:
    """The request as it is signed: where the call names no seed, the order's hash gives one.

    No retry changes it: the same call has the same order.
    """
    return payload.model_copy(update={"seed": None}) if seed is None else payload


def sized(body: dict[str, Any]) -> dict[str, Any]:
    """A quote's body with the call's size in place of what it says. Raises `BadRequest`."""
    rest: dict[str, Any] = {name: body[name] for name in _TOLD if name in body}
    if "units" in body:
        return rest
    try:
        payload = _quoted(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadRequest(ErrorCode.INVALID_REQUEST, f"{where}: {first['msg']}", param=where) from error
    units = {"input": units_in_ceiling(payload), "output": units_out_ceiling(payload)}
    return rest | {"task": payload.task, "units": units}


def _quoted(body: dict[str, Any]) -> Payload:
    if "messages" in body:
        call = requests.ChatCall.model_validate(body)
        return only_choice(call.payloads(0), call)
    if "input" in body:
        return requests.EmbedCall.model_validate(body).payload()
    if not isinstance(body.get("body"), dict):
        raise BadRequest(ErrorCode.INVALID_REQUEST, "give one of messages, input, body and units")
    return build_payload(str(body.get("task")), BLANK_MODEL, body["body"])


def hints_of(request: Request) -> Hints:
    """What a request says of itself."""
    # OpenAI clients count their own retries, and send no idempotency key.
    retries = request.headers.get("x-stainless-retry-count", "0")
    return Hints(name=request.headers.get("idempotency-key", ""), repeated=retries not in ("", "0"))


def event(data: Any, name: str = "") -> str:
    """One server-sent event."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return f"event: {name}\ndata: {text}\n\n" if name else f"data: {text}\n\n"
