"""How many jobs a process works on at once; a task waits here before it claims its order."""

from __future__ import annotations

import threading


class Stopping(Exception):
    """The process takes on no more jobs; the task belongs back in the queue."""


class Slots:
    """Counted places; closed, they turn everybody away."""

    def __init__(self, number: int) -> None:
        self._free = self.number = number
        self._closed = False
        lock = threading.Lock()
        # Apart, so that a place given back wakes one of those who wait for one.
        self._one_free, self._all_free = threading.Condition(lock), threading.Condition(lock)

    @property
    def taken(self) -> int:
        """Places in use."""
        return self.number - self._free

    def enter(self) -> None:
        """Takes a place, when there is one.

        Raises:
            Stopping: the places are closed.
        """
        with self._one_free:
            self._one_free.wait_for(lambda: self._closed or self._free > 0)
            if self._closed:
                raise Stopping
            self._free -= 1

    def leave(self) -> None:
        """Gives a place back."""
        with self._one_free:
            self._free += 1
            self._one_free.notify()
            if self._free == self.number:
                self._all_free.notify_all()

    def close(self) -> None:
        """Sends away who waits and who comes. Idempotent."""
        with self._one_free:
            self._closed = True
            self._one_free.notify_all()

    def empty(self, *, timeout_seconds: float) -> bool:
        """Waits until no place is taken; False when that takes too long."""
        with self._all_free:
            return self._all_free.wait_for(lambda: self._free == self.number, timeout_seconds)
