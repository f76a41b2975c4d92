"""What the daemon asks the infer process: a count, or no answer, never a wrong one and never a long wait."""

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from marketplace.protocol import wire
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.payloads import Payload, encode_payload
from tests.worker.node.test_link import linked
from tests.worker.support import Bench, chat_payload
from worker.node.counting import CountServer, ask_count, count_socket

Served = Callable[[Callable[[Payload], int | None]], Path]
ASKED = encode_payload(chat_payload())


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    started: list[CountServer] = []

    def start(units_in: Callable[[Payload], int | None]) -> Path:
        path = count_socket(tmp_path)
        started.append(CountServer(path, units_in))
        started[-1].start()
        return path

    yield start
    for server in started:
        server.stop()


def test_count_is_the_engines_own(served: Served) -> None:
    seen: list[Payload] = []
    path = served(lambda payload: seen.append(payload) or 17)
    assert ask_count(path, ASKED) == 17
    assert seen == [chat_payload()]


def test_model_that_is_not_in_memory_is_not_counted(served: Served) -> None:
    assert ask_count(served(lambda _: None), ASKED) is None


def test_request_that_cannot_be_run_is_not_counted(served: Served) -> None:
    def refuse(payload: Payload) -> int:
        raise BadRequest(ErrorCode.INPUT_TOO_LONG)

    path = served(refuse)
    assert ask_count(path, ASKED) is None
    assert ask_count(path, b"no payload") is None


def test_defect_of_an_engine_ends_one_question_and_not_the_server(served: Served) -> None:
    answers = iter([RuntimeError("broken"), 3])

    def once_broken(_: Payload) -> int:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    path = served(once_broken)
    assert ask_count(path, ASKED) is None
    assert ask_count(path, ASKED) == 3


def test_nobody_there_is_no_count(tmp_path: Path) -> None:
    assert ask_count(count_socket(tmp_path), ASKED) is None


def test_infer_process_that_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.node.counting._PATIENCE_SECONDS", 0.05)
    path = tmp_path / "deaf"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as deaf:
        deaf.bind(str(path))
        deaf.listen()
        assert ask_count(path, ASKED) is None


def test_long_request_is_not_even_sent(served: Served) -> None:
    long = encode_payload(chat_payload(messages=({"role": "user", "content": "x" * wire.MAX_COUNTED_BYTES},)))
    assert ask_count(served(lambda _: 1), long) is None


def test_socket_of_a_killed_process_is_replaced(served: Served, tmp_path: Path) -> None:
    path = count_socket(tmp_path)
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left:
        left.bind(str(path))
    assert path.exists()
    assert ask_count(served(lambda _: 2), ASKED) == 2


def test_path_that_is_too_long_leaves_the_process_running(tmp_path: Path) -> None:
    far = tmp_path / ("x" * 120)
    server = CountServer(count_socket(far), lambda _: 1)
    server.start()
    assert ask_count(count_socket(far), ASKED) is None
    server.stop()


async def test_questions_wait_for_each_other_and_only_too_many_are_turned_away(
    bench: Bench, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.node.desk._MOST_QUESTIONS", 8)
    go_on = threading.Event()
    served(lambda _: 17 if go_on.wait(5) else None)
    async with linked(bench) as made:
        for number in range(9):
            await made.gateway.send(wire.Count(number=number, payload=ASKED))
        assert await made.gateway.wait_for(wire.Counted) == [wire.Counted(number=8)]
        go_on.set()
        answers = await made.gateway.wait_for(wire.Counted, 9)
        assert [answer.units_in for answer in answers[1:]] == [17] * 8


async def test_node_answers_a_gateways_question(bench: Bench, served: Served) -> None:
    async with linked(bench) as made:
        await made.gateway.send(wire.Count(number=1, payload=ASKED))
        assert await made.gateway.wait_for(wire.Counted) == [wire.Counted(number=1)]
        served(lambda _: 17)
        await made.gateway.send(wire.Count(number=2, payload=ASKED))
        answers = await made.gateway.wait_for(wire.Counted, 2)
        assert answers[1] == wire.Counted(number=2, units_in=17)
        assert to_hex(bench.offer.model_id) == chat_payload().model
