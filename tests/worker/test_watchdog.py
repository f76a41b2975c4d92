"""A step that never ends, seen from outside of its thread."""

from __future__ import annotations

import os
import threading

import pytest

from tests.worker.inference.conftest import chat, chat_model, job
from worker.inference.host import EngineThread, Ticket, longest_step_seconds
from worker.models import ModelDir
from worker.watchdog import Watchdog

__all__ = ["chat_model"]


class Held:
    """A stepper whose step lasts until it is let go."""

    def __init__(self) -> None:
        self.in_step, self.go_on, self.after = threading.Event(), threading.Event(), threading.Event()

    def start(self) -> None:
        return

    def admit(self, ticket: Ticket) -> None:
        return

    def step(self) -> bool:
        if self.in_step.is_set():
            self.after.set()
            return False
        self.in_step.set()
        assert self.go_on.wait(60)
        return True


def test_step_counts_while_it_lasts_and_no_longer(chat_model: ModelDir) -> None:
    held = Held()
    thread = EngineThread("held", held, threads=1)
    thread.load()
    assert thread.step_seconds == 0
    thread.submit(job(chat(chat_model, "x")), lambda _event: None)
    assert held.in_step.wait(60)
    first = thread.step_seconds
    assert longest_step_seconds() >= first > 0
    held.go_on.set()
    assert held.after.wait(60)
    thread.close()
    assert thread.step_seconds == 0


@pytest.mark.parametrize(("seconds", "ended"), [(0.0, []), (5.0, []), (5.1, [os.EX_SOFTWARE])])
def test_process_is_ended_when_a_step_takes_too_long(seconds: float, ended: list[int]) -> None:
    statuses: list[int] = []
    Watchdog(lambda: seconds, 5, statuses.append).check()
    assert statuses == ended


def test_watchdog_looks_by_itself_unless_nothing_is_too_long() -> None:
    seen = threading.Event()
    watching = Watchdog(lambda: 6.0, 5, lambda _status: seen.set())
    watching.start()
    assert seen.wait(60)
    watching.stop()
    idle = Watchdog(lambda: 6.0, 0, lambda _status: pytest.fail("nothing is too long"))
    idle.start()
    idle.stop()
