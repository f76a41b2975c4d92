"""A body of OpenAI's into an ask of the SDK's, and what comes of it into OpenAI's answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from pydantic import ValidationError

from marketplace.client.aio import AsyncWattline
from marketplace.client.asks import Ask
from marketplace.client.callbook import Once
from marketplace.client.work import Began, Done, Piece, Told
from marketplace.openai import answers, billing, money, requests
from marketplace.protocol.annex import read_annex
from marketplace.protocol.errors import BadRequest, Broken, ErrorCode, WattError
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
AnyCall = requests.ChatCall | requests.EmbedCall | requests.TaskCall


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

    def start(self, call: AnyCall, payload: Payload, hints: Hints, *, streamed: bool = False) -> Feed:
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
        bundle, deployment = done.bundle, self.client.desk.deployment
        method = read_annex(bundle.annex).energy_method
        used = billing.spent(bundle.receipt, ceiling_atoms=done.ceiling_atoms, energy_method=method)
        currency = billing.Currency(decimals=deployment.token_decimals, symbol=deployment.token_symbol)
        usage = billing.of_completion(task, used, currency)
        return {"usage": usage, "job_id": bundle.job_id, "receipt": bundle.to_json()}

    def headers(self, began: Began) -> dict[str, str]:
        """Headers of an answer."""
        headers = {"x-job-id": began.job_id} if began.job_id else {}
        if began.again:
            headers[REPLAYED] = "true"
        left = self.client.work.ordering.spending().left_atoms
        return headers if left is None else headers | {BUDGET_LEFT: format_atoms(left, self._decimals)}

    def budget(self) -> dict[str, Any]:
        """How the budget stands, in units and atoms."""
        found = self.client.work.ordering.spending()
        amounts = {"limit": found.limit_atoms, "spent": found.spent_atoms, "left": found.left_atoms}
        units = {name: None if a is None else format_atoms(a, self._decimals) for name, a in amounts.items()}
        atoms = {f"{name}_atoms": None if a is None else str(a) for name, a in amounts.items()}
        return {"currency": self.client.desk.deployment.token_symbol, **units, **atoms}

    async def lines(
        self, feed: Feed, model: str, head: tuple[Began, Piece | Done], request_id: str
    ) -> AsyncIterator[str]:
        """A generation as OpenAI streams it; usage and receipt come with the last chunk."""
        began = head[0]
        item: Told = head[1]
        created = self.client.desk.now_ms() // 1000
        chunk = partial(answers.chat_chunk, began.job_id, model, created)
        yield event(chunk({"role": "assistant", "content": ""}))
        try:
            while not isinstance(item, Done):
                if isinstance(item, Piece):
                    yield event(chunk({"content": item.text}, logprobs=item.logprobs))
                following = await feed.next()
                if following is None:
                    raise Broken(ErrorCode.INTERNAL, "the call ended without an end")
                item = following
        except WattError as error:
            yield event(problems.body_of(error, request_id))
        else:
            yield event(chunk({}, answers.finish_of(item.answer)))
            yield event(chunk(None) | self.answered("chat", item))
        yield "data: [DONE]\n\n"

    def _ask(self, call: AnyCall, payload: Payload) -> Ask:
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


def chat_payload(call: requests.ChatCall) -> ChatPayload:
    """The request of a chat call. Raises `BadRequest`.

    Where the call names no seed, the order's hash gives one, which no retry changes.
    """
    if call.n not in (None, 1):
        raise BadRequest(ErrorCode.UNSUPPORTED, "one choice a call: n must be 1", param="n")
    payload = call.payload(0)
    return payload.model_copy(update={"seed": None}) if call.seed is None else payload


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
        return chat_payload(requests.ChatCall.model_validate(body))
    if "input" in body:
        return requests.EmbedCall.model_validate(body).payload()
    if not isinstance(body.get("body"), dict):
        raise BadRequest(ErrorCode.INVALID_REQUEST, "give one of messages, input, body and units")
    return build_payload(str(body.get("task")), BLANK_MODEL, body["body"])


def event(data: Any) -> str:
    """One server-sent event."""
    return f"data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n"
