"""Children are watched, started again, and gone when it is over."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from marketplace.local.child import Child, marked
from marketplace.local.supervisor import Stopped, Supervisor
from marketplace.protocol.errors import Broken
from tests.local.programs import BREAKS, LEAVES_A_SESSION, STAYS, STUBBORN, Recorder, command, wait_for


class House:
    """A supervisor with what it talks to."""

    def __init__(self, grace_seconds: float = 5) -> None:
        self.screen = Recorder()
        self.stop = threading.Event()
        self.written: list[dict[str, Child]] = []
        self.supervisor = Supervisor(
            self.screen, self.stop, grace_seconds, f"run-{id(self)}", self.written.append
        )

    def up(self, folder: Path, name: str, program: str = STAYS, *, restart: bool = False) -> Child:
        child = self.supervisor.start(command(folder, name, program, restart=restart))
        if program is not BREAKS:
            wait_for(lambda: child.tail() == ["up"])
        return child


@pytest.fixture
def house() -> Iterator[House]:
    made = House()
    yield made
    made.supervisor.stop()


def test_stop_ends_newest_first(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    children = [house.up(tmp_path, name) for name in ("chain", "broker", "gateway")]
    order: list[str] = []
    monkeypatch.setattr(Child, "terminate", _recording(order, Child.terminate))
    house.supervisor.stop()
    assert order == ["gateway", "broker", "chain"]
    assert [child.exit_code() for child in children] == [-signal.SIGTERM] * 3


def test_named_tier_stops_together_and_before_the_rest(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("chain", "node-1", "node-2"):
        house.up(tmp_path, name)
    order: list[str] = []
    monkeypatch.setattr(Child, "terminate", _recording(order, Child.terminate))
    monkeypatch.setattr(Child, "wait", _recording(order, Child.wait))
    house.supervisor.stop([["node-2", "node-1"]])
    assert order == ["node-2", "node-1", "node-2", "node-1", "chain", "chain"]


def test_process_that_ignores_the_request_is_killed_after_the_grace(tmp_path: Path) -> None:
    house = House(grace_seconds=0.3)
    child = house.up(tmp_path, "stubborn", STUBBORN)
    house.supervisor.stop()
    assert child.exit_code() == -signal.SIGKILL
    assert house.screen.notes == ["stubborn did not stop in 0.3 s and was killed"]


def test_children_of_a_child_go_with_it(tmp_path: Path) -> None:
    house = House(grace_seconds=0.3)
    child = house.up(tmp_path, "node-1", LEAVES_A_SESSION)
    assert len(marked(child.mark)) == 2
    house.supervisor.stop()
    assert marked(child.mark) == []


def test_process_that_ends_while_starting_fails_the_start(house: House, tmp_path: Path) -> None:
    child = house.up(tmp_path, "gateway", BREAKS)
    with pytest.raises(Broken, match="gateway ended with exit code 3 while starting") as caught:
        house.supervisor.until(lambda: False, 20, "the gateway")
    assert caught.value.values["child"] is child
    assert child.tail() == ["the disk is full"]


def test_step_that_takes_too_long_fails_the_start(house: House) -> None:
    with pytest.raises(Broken, match="the nodes took longer than 0 s"):
        house.supervisor.until(lambda: False, 0, "the nodes")


def test_request_to_stop_ends_a_wait(house: House) -> None:
    house.stop.set()
    with pytest.raises(Stopped):
        house.supervisor.until(lambda: False, 20, "the nodes")


def test_process_the_market_needs_ends_the_market_and_names_its_log(house: House, tmp_path: Path) -> None:
    house.up(tmp_path, "chain", BREAKS)
    assert house.supervisor.watch() == 1
    ((text, lines, hint),) = house.screen.problems
    assert text == "chain ended with exit code 3; the market cannot go on without it"
    assert lines == ["the disk is full"]
    assert str(tmp_path / "chain.log") in hint


def test_killed_node_is_started_again_and_its_new_id_is_written_down(house: House, tmp_path: Path) -> None:
    first = house.up(tmp_path, "node-1", restart=True)
    watching = threading.Thread(target=house.supervisor.watch)
    watching.start()
    os.kill(first.pid, signal.SIGKILL)
    wait_for(lambda: house.supervisor.children["node-1"].pid != first.pid)
    house.stop.set()
    watching.join(20)
    assert house.screen.problems[0][0] == "node-1 was ended by signal 9; starting it again in 1 s"
    assert house.written[-1]["node-1"].pid == house.supervisor.children["node-1"].pid


def test_restarts_back_off(house: House, tmp_path: Path) -> None:
    house.up(tmp_path, "gateway", BREAKS, restart=True)
    watching = threading.Thread(target=house.supervisor.watch)
    watching.start()
    wait_for(lambda: len(house.screen.problems) == 2)
    house.stop.set()
    watching.join(20)
    assert [text[-4:] for text, _, _ in house.screen.problems] == [" 1 s", " 2 s"]


def _recording(order: list[str], real: Callable[..., object]) -> Callable[..., object]:
    def recorded(child: Child, *args: object) -> object:
        order.append(child.name)
        return real(child, *args)

    return recorded
