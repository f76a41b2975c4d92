"""Requests to send: schemathesis makes them from the OpenAPI page, a dice dresses them as callers would."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import hypothesis
import schemathesis
from hypothesis import HealthCheck, Phase
from hypothesis.errors import Unsatisfiable
from hypothesis.strategies import SearchStrategy
from schemathesis import Case, GenerationMode

from tests.assure.report import ROOT
from tests.fuzz.serving import CALLS
from tests.fuzz.world import Dice, World, bent

Schema = schemathesis.BaseSchema
URL: Final = "http://gateway"
# Of each operation and mode: few in the first round, which so ends early; later ones vary more.
_FIRST, _LATER = 8, 40
_LINE: Final = {"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": CALLS["/v1/embeddings"]}
_LINES: Final = (
    b"", b"\n\n", b"{}", b"null", b"[" * 300, b'{"custom_id":1}', b"\xff\xfe", b"\x00", b'{"a":NaN}',
    b"{" * 70, json.dumps(_LINE).encode(),
)  # fmt: skip


@dataclass
class Call:
    """One request, ready to send."""

    operation: str
    method: str
    path: str
    headers: dict[str, str]
    query: Any = None
    content: dict[str, Any] = field(default_factory=dict)

    def curl(self) -> str:
        """For somebody who wants to see it again."""
        body = next((f" -d {value!r}" for name, value in self.content.items() if value), "")
        told = "".join(f" -H {name + ': ' + value[:200]!r}" for name, value in self.headers.items())
        return f"curl -X {self.method} '$URL{self.path}' # query {self.query!r}{told}{body[:2000]}"


def page() -> Schema:
    """The committed OpenAPI page."""
    return schemathesis.openapi.from_path(ROOT / "docs" / "openapi.json")


def edges(schema: Schema) -> Iterator[Case[Any]]:
    """Every boundary the page draws, from both sides, and methods it does not name: always the same."""
    for operation in _operations(schema):
        settings = schema.config.generation_for(operation=operation)
        yield from schema.iter_coverage_cases(
            operation, generation_modes=list(GenerationMode), generation_config=settings
        )


def drawn(schema: Schema, seed: int) -> Iterator[Case[Any]]:
    """Random cases without end, a few of each operation in turn; half of them do not keep to the page."""
    sources = [
        operation.as_strategy(generation_mode=mode)
        for operation in _operations(schema)
        for mode in GenerationMode
        # A path alone can be anything: whoever looks for one that is not allowed looks long.
        if mode is GenerationMode.POSITIVE or list(operation.query) or list(operation.body)
    ]
    for turn in itertools.count():
        fruitful = []
        for source in sources:
            found = _drawn(source, seed * 1_000_003 + turn, _FIRST if turn == 0 else _LATER)
            if found:
                fruitful.append(source)
            yield from found
        sources = fruitful


def _drawn(source: SearchStrategy[Case[Any]], seed: int, count: int) -> list[Case[Any]]:
    found: list[Case[Any]] = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @hypothesis.given(case=source)
    def keep(case: Case[Any]) -> None:
        found.append(case)

    try:
        keep()
    except Unsatisfiable:
        return []
    return found


def _operations(schema: Schema) -> Iterator[Any]:
    for found in schema.get_all_operations():
        yield found.ok()


def dressed(case: Case[Any], world: World, dice: Dice) -> Call:
    """The case as a caller with a key, a purse and some knowledge would send it; then, at times, broken."""
    label = case.operation.label
    _name_what_exists(case, world, dice)
    if dice.random() < 0.7 and (body := world.signed(label, dice)) is not None:
        case.body, case.media_type = body, "application/json"
        if "session_id" in case.path_parameters:
            case.path_parameters = {"session_id": world.own_session}
    elif dice.random() < 0.4 and (body := world.honest(label, dice)) is not None:
        odd = dice.sample(sorted(case.body), min(1, len(case.body))) if isinstance(case.body, dict) else []
        case.body, case.media_type = body | {name: case.body[name] for name in odd}, "application/json"
    if label == "POST /v1/files" and dice.random() < 0.7:
        lines = (
            [dice.choice(_LINES) for _ in range(dice.randrange(6))] if dice.random() < 0.7 else [_LINES[-1]]
        )
        case.body = {"file": b"\n".join(lines), "purpose": "batch"}
    kept = case.as_transport_kwargs(base_url=URL)
    headers = {name: value for name, value in kept["headers"].items() if name.lower() != "user-agent"}
    call = Call(
        operation=label,
        method=kept["method"],
        path=kept["url"].removeprefix(URL),
        headers=headers | _more(label, world, dice),
        query=kept.get("params"),
        content={name: kept[name] for name in ("json", "data", "files") if kept.get(name) is not None},
    )
    return _broken(call, dice) if dice.random() < 0.08 else call


def _name_what_exists(case: Case[Any], world: World, dice: Dice) -> None:
    path, share = case.operation.path, dice.choice([0.5, 0.9, 1.0])
    for place in (case.path_parameters, case.query, case.body):
        if not isinstance(place, dict):
            continue
        for name in place:
            if dice.random() < share and (known := world.named(name, path, dice)) is not None:
                place[name] = known


def _more(label: str, world: World, dice: Dice) -> dict[str, str]:
    headers = world.credentials(label, dice)
    if dice.random() < 0.25:
        headers |= dice.choice(
            [
                {"idempotency-key": dice.choice(["one", "two", "", "x" * 300, "\xe9", "a b"])},
                {"x-watt-retain": dice.choice(["1h", "0", "-1s", "9" * 40 + "d", "forever", "30d"])},
                {"accept": dice.choice(["text/event-stream", "text/csv", "*/*;q=0", "\xe9"])},
                {"x-request-id": dice.choice(["req-12345678", "x" * 65, "%0a"])},
                {"x-stainless-retry-count": dice.choice(["1", "99999999999999999999", "-1", "²"])},
                {
                    "traceparent": dice.choice(
                        [f"00-{'a' * 32}-{'b' * 16}-01", f"00-{'0' * 32}-{'0' * 16}-00", "00"]
                    )
                },
                {"range": "bytes=0-1,-1", "if-none-match": "*"},
            ]
        )
    if label in {f"POST {path}" for path in CALLS} and dice.random() < 0.12:
        headers = {name: value for name, value in headers.items() if name != "authorization"} | world.paid(
            dice
        )
    return headers


def _broken(call: Call, dice: Dice) -> Call:
    """Bytes no honest client would send."""
    plain = call.content.get("json", call.content.get("data"))
    content = plain if isinstance(plain, bytes) else json.dumps(bent(plain, dice)).encode()
    roll = dice.randrange(5)
    if roll == 0:
        content = content[: dice.randrange(len(content) + 1)]
    elif roll == 1:
        content = gzip.compress(content)
        call.headers["content-encoding"] = "gzip"
    elif roll == 2:
        at = dice.randrange(len(content) + 1)
        content = content[:at] + dice.randbytes(3) + content[at:]
    elif roll == 3:
        content = b"[" * dice.randrange(200) + content
    kinds = [
        "application/json",
        "text/plain",
        "multipart/form-data",
        "multipart/form-data; boundary=x",
        "",
        "a/b; charset=\xff",
    ]
    call.headers["content-type"] = dice.choice(kinds)
    call.content = {"data": content}
    return call
