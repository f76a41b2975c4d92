"""The gateway under everything its OpenAPI page allows and forbids, and under bodies made to hurt."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from marketplace.openai import problems
from marketplace.protocol.errors import BadRequest, Broken, ErrorCode
from tests.fuzz import cases
from tests.fuzz.campaign import MOST_MIB, Found, Gateway, hurt, one, run, running
from tests.fuzz.cases import Call
from tests.fuzz.judge import PROBLEM, SLOW_SECONDS, fault_of
from tests.fuzz.world import Dice, World

CASES, SEED = 3_000, 20_261_129
# Operations of which chance may let no call succeed: a guard against calls that all end at the door.
MOST_UNREACHED = 5


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running(tmp_path_factory.mktemp("gateway")) as found:
        yield found


@pytest.fixture(scope="module")
def found(gateway: Gateway) -> Found:
    return run(gateway, seed=SEED, count=CASES)


@pytest.mark.fuzz
def test_nothing_that_is_sent_is_answered_by_a_defect(found: Found) -> None:
    assert found.faults == {}, found.told()
    assert found.sent == CASES
    assert found.failed == 0


@pytest.mark.fuzz
def test_every_operation_is_asked_and_succeeds_at_times(found: Found) -> None:
    everything = {found.ok().label for found in cases.page().get_all_operations()}
    assert set(found.asked) == everything
    assert len(everything - set(found.reached)) <= MOST_UNREACHED, everything - set(found.reached)


@pytest.mark.fuzz
def test_hostile_bodies_are_refused_in_bounded_memory(gateway: Gateway, found: Found) -> None:
    hurts = hurt(gateway)
    assert [f"{one.name}: {one.fault}" for one in hurts if one.fault] == []
    assert max(one.peak_mib for one in hurts) <= MOST_MIB
    assert found.peak_after_mib <= MOST_MIB
    assert gateway.said() == []


def problem(error: Any = None, **changes: Any) -> bytes:
    error = error or BadRequest(ErrorCode.UNKNOWN_JOB)
    return json.dumps(problems.body_of(error, "req_1") | changes).encode()


HEADERS = {"content-type": PROBLEM, "x-request-id": "req_1"}
WRONG = [
    ("answered 500", 500, HEADERS, problem(Broken(ErrorCode.INTERNAL))),
    ("no x-request-id", 404, {"content-type": PROBLEM}, problem()),
    ("of type application/json", 404, HEADERS | {"content-type": "application/json"}, problem()),
    ("of type nothing", 404, {"x-request-id": "req_1"}, problem()),
    ("not one JSON object", 404, HEADERS, b"[]"),
    ("not one JSON object", 404, HEADERS, b"Not Found"),
    ("unknown code 'oops'", 404, HEADERS, problem(code="oops")),
    ("says 404 and is 400", 400, HEADERS, problem()),
    ("charged 'maybe'", 404, HEADERS, problem(charged="maybe")),
    ("charged None", 404, HEADERS, problem(charged=None)),
    ("cannot be read", 200, HEADERS | {"content-type": "application/json"}, b"{"),
    ("breaks off", 200, HEADERS | {"content-type": "text/event-stream"}, b"data: {}\n"),
    ("a stream with", 200, HEADERS | {"content-type": "text/event-stream"}, b"data: {\n\n"),
    ("of type image/png", 200, HEADERS | {"content-type": "image/png"}, b"\x89"),
    ("instead of text/plain", 200, HEADERS | {"content-type": "text/csv"}, b"a"),
    ("a body with 204", 204, HEADERS, b"a"),
]


@pytest.mark.parametrize(("what", "status", "headers", "body"), WRONG)
def test_wrong_answer_is_told(what: str, status: int, headers: dict[str, str], body: bytes) -> None:
    assert what in str(fault_of("/metrics", status, headers, body))


def test_right_answer_is_no_fault() -> None:
    told = HEADERS | {"content-type": "application/json; charset=utf-8"}
    stream = HEADERS | {"content-type": "text/event-stream"}
    assert fault_of("/v1/jobs/x", 404, HEADERS, problem()) is None
    assert fault_of("/v1/jobs/x", 404, HEADERS, problem(charged="refunded")) is None
    assert fault_of("/v1/jobs/x", 200, told, b"{}") is None
    assert fault_of("/v1/jobs/x", 204, HEADERS, b"") is None
    assert fault_of("/v1/jobs/x", 200, stream, b"event: a\ndata: {}\n\ndata: [DONE]\n\n") is None
    assert "took" in str(fault_of("/v1/jobs/x", 404, HEADERS, problem(), SLOW_SECONDS + 1))


STATE: dict[str, Any] = {"said": [], "now_ms": 0, "began": 0.0, "secret": "s", "key": "k", "own_seq": 0}
STATE |= {"own_session": "0x" + "00" * 32, "voucher": {}}


class Broke(Gateway):
    """A gateway that answers everything with its own defect."""

    def __init__(self) -> None:
        self.state = STATE

    def send(self, call: Call) -> tuple[int, Any, bytes, float]:
        return 500, HEADERS, problem(Broken(ErrorCode.INTERNAL)), 0.0


def test_defect_is_kept_with_the_call_that_shows_it() -> None:
    gateway, found = Broke(), Found(seed=1)
    call = Call(
        operation="GET /v1/jobs", method="GET", path="/v1/jobs", headers={"a": "b"}, query={"limit": "0"}
    )
    one(gateway, World(gateway.state), call, found)
    assert (found.sent, found.failed) == (1, 1)
    assert "GET /v1/jobs: answered 500" in found.told()
    assert "curl -X GET '$URL/v1/jobs'" in found.told()


def test_one_seed_draws_the_same_calls() -> None:
    def first(seed: int) -> list[str]:
        page = cases.page()
        drawn = cases.drawn(page, seed)
        picked = [next(drawn) for _ in range(20)]
        return [repr(case) for case in picked] + [
            cases.dressed(case, World(STATE), Dice(n)).path for n, case in enumerate(picked)
        ]

    assert first(1) == first(1)
    assert first(1) != first(2)
