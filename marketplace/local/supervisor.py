"""Children in the order they were started: watched, started again, stopped in reverse."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from marketplace.local.child import Child, Command
from marketplace.local.screen import Screen
from marketplace.protocol.errors import Broken, ErrorCode

_WATCH_SECONDS: Final = 0.2
_HEALTHY_SECONDS: Final = 60.0
_BACK_OFF_SECONDS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)


class Stopped(Exception):
    """Somebody asked us to stop; not an error."""


@dataclass(slots=True)
class _Place:
    """One child's seat: it is filled again when a restart is due."""

    child: Child
    failures: int = 0
    restart_at: float | None = None


class Supervisor:
    """Owns every process of a run."""

    def __init__(
        self,
        screen: Screen,
        stop: threading.Event,
        grace_seconds: float,
        run_id: str,
        changed: Callable[[dict[str, Child]], None],
    ) -> None:
        """Every process carries `run_id`; `changed` hears of the children whenever one was started."""
        self._screen = screen
        self._changed = changed
        self._stop = stop
        self._grace_seconds = grace_seconds
        self._run_id = run_id
        self._places: dict[str, _Place] = {}

    @property
    def children(self) -> dict[str, Child]:
        """Every child by name, in the order they were started."""
        return {name: place.child for name, place in self._places.items()}

    def start(self, command: Command) -> Child:
        """Starts one more process."""
        child = Child(command, self._run_id)
        self._places[command.name] = _Place(child)
        self._changed(self.children)
        return child

    def until(self, ready: Callable[[], bool], seconds: float, what: str) -> None:
        """Waits until `ready`.

        Raises:
            Stopped: somebody asked us to stop.
            Broken: a process ended meanwhile, or the time is over.
        """
        deadline = time.monotonic() + seconds
        while not ready():
            for child in self.children.values():
                if (code := child.exit_code()) is not None:
                    raise Broken(ErrorCode.INTERNAL, f"{child.name} {how(code)} while starting", child=child)
            if time.monotonic() > deadline:
                raise Broken(ErrorCode.INTERNAL, f"{what} took longer than {seconds:g} s")
            if self._stop.wait(_WATCH_SECONDS):
                raise Stopped

    def watch(self) -> int:
        """Keeps everything running until asked to stop.

        Returns 0 when asked to stop, 1 when a process ended that the market cannot do without.
        """
        while not self._stop.wait(_WATCH_SECONDS):
            for place in self._places.values():
                code = place.child.exit_code()
                if code is None:
                    continue
                if not place.child.command.restart:
                    self._tell_end(place.child, code, "the market cannot go on without it")
                    return 1
                self._restart(place, code)
        return 0

    def stop(self, tiers: Sequence[Sequence[str]] = ()) -> None:
        """Stops everything, newest first; the names of one tier stop together."""
        names = [name for tier in tiers for name in tier]
        rest = [[name] for name in reversed(self._places) if name not in names]
        for tier in [*tiers, *rest]:
            self._stop_together([self._places.pop(name).child for name in tier if name in self._places])

    def _stop_together(self, children: Sequence[Child]) -> None:
        for child in children:
            child.terminate()
        deadline = time.monotonic() + self._grace_seconds
        for child in children:
            if not child.wait(deadline):
                self._screen.note(f"{child.name} did not stop in {self._grace_seconds:g} s and was killed")
                child.kill()

    def _restart(self, place: _Place, code: int) -> None:
        now = time.monotonic()
        if place.restart_at is None:
            if place.child.alive_seconds() > _HEALTHY_SECONDS:
                place.failures = 0
            pause = _BACK_OFF_SECONDS[min(place.failures, len(_BACK_OFF_SECONDS) - 1)]
            place.failures += 1
            place.restart_at = now + pause
            self._tell_end(place.child, code, f"starting it again in {pause:g} s")
        elif now >= place.restart_at:
            place.restart_at = None
            place.child.kill()
            place.child = Child(place.child.command, self._run_id)
            self._screen.note(f"{place.child.name} started again", name=place.child.name, pid=place.child.pid)
            self._changed(self.children)

    def _tell_end(self, child: Child, code: int, then: str) -> None:
        hint = f"whole log: {child.command.log}"
        self._screen.problem(f"{child.name} {how(code)}; {then}", child.tail(), hint)


def how(code: int) -> str:
    """An exit code in words."""
    return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
