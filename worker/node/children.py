"""The node's Celery workers as child processes: started, watched, restarted, stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from marketplace.protocol.errors import Broken, ErrorCode
from marketplace.telemetry.logs import get_logger
from marketplace.telemetry.names import Log

_BACK_OFF_SECONDS: Final = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
# A worker that ran this long was healthy; its next failure is a first one again.
_HEALTHY_SECONDS: Final = 60.0
# What a spare process reads on its standard input when it is needed.
GO: Final = b"go\n"
_PARENT: Final = "WATT_NODE_PARENT_PID"
_ORPHAN_POLL_SECONDS: Final = 1.0
_ORPHAN_SECONDS: Final = 5.0

log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSpec:
    """How to run one Celery worker. `app` is the module that holds the Celery app.

    With `spare`, a second process may wait with that module imported, to start at once.
    """

    name: str
    app: str
    queue: str
    pool: str
    concurrency: int
    spare: bool = False

    def command(self) -> list[str]:
        """Arguments to start it with this Python."""
        return [sys.executable, "-m", "celery", *self._arguments()]

    def spare_command(self) -> list[str]:
        """Arguments to start the one that waits."""
        return [sys.executable, "-m", "worker.node.spare", self.app, *self._arguments()]

    def _arguments(self) -> list[str]:
        return [
            *("-A", self.app, "--quiet", "worker"),
            *("-Q", self.queue, "-n", f"{self.name}@{self.queue}", "--pool", self.pool),
            *("--concurrency", str(self.concurrency), "--loglevel", "INFO"),
            *("--without-gossip", "--without-mingle", "--without-heartbeat"),
        ]


class Child:
    """One worker process, kept running."""

    def __init__(
        self,
        spec: ChildSpec,
        environment: Mapping[str, str],
        *,
        on_exit: Callable[[int], bool],
    ) -> None:
        """`on_exit` gets the pid of every process that ended, before the next one starts.

        It says whether the process had finished any work: then nothing is wrong with how it starts, and the
        next one need not wait.
        """
        self.spec = spec
        self._environment = environment
        self._on_exit = on_exit
        self._process: asyncio.subprocess.Process | None = None
        self._spare: asyncio.subprocess.Process | None = None
        self._stopping = False

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if running and self._process else None

    async def start(self) -> None:
        """Starts the process, or tells the spare one to go on."""
        spare, self._spare = self._spare, None
        if spare is not None and await _told(spare):
            self._process = spare
        else:
            # A session of its own: Ctrl-C reaches the daemon alone, which then stops its workers in order.
            self._process = await asyncio.create_subprocess_exec(
                *self.spec.command(), env=dict(self._environment), start_new_session=True
            )
        log.info(Log.STARTED, name=self.spec.name, pid=self._process.pid, spare=self._process is spare)

    async def keep_spare(self) -> None:
        """Starts a spare process, where one is wanted and none waits."""
        waits = self._spare is not None and self._spare.returncode is None
        if self.spec.spare and not waits and not self._stopping:
            self._spare = await asyncio.create_subprocess_exec(
                *self.spec.spare_command(),
                env=dict(self._environment),
                stdin=asyncio.subprocess.PIPE,
                start_new_session=True,
            )

    async def wait_ready(self, ready: Callable[[int], bool], *, timeout_seconds: float) -> None:
        """Returns once `ready(pid)`.

        Raises:
            Broken: it ended first, or takes too long.
        """
        deadline = asyncio.get_running_loop().time() + timeout_seconds
        while True:
            pid = self.pid
            if pid is None:
                raise Broken(
                    ErrorCode.NOT_READY,
                    f"the {self.spec.name} worker ended with status {self._status()} before it was ready; "
                    "its last lines above say why",
                )
            if await asyncio.to_thread(ready, pid):
                return
            if asyncio.get_running_loop().time() > deadline:
                raise Broken(
                    ErrorCode.NOT_READY, f"the {self.spec.name} worker is not ready after {timeout_seconds} s"
                )
            await asyncio.sleep(0.1)

    async def watch(self) -> None:
        """Restarts the process whenever it ends, with growing pauses, until `stop`."""
        failures = 0
        while not self._stopping and self._process is not None:
            pid, began = self._process.pid, asyncio.get_running_loop().time()
            status = await self._process.wait()
            worked = await asyncio.to_thread(self._on_exit, pid)
            if self._stopping:
                return
            healthy = worked or asyncio.get_running_loop().time() - began > _HEALTHY_SECONDS
            failures = 0 if healthy else failures + 1
            pause = _BACK_OFF_SECONDS[min(max(failures - 1, 0), len(_BACK_OFF_SECONDS) - 1)]
            log.error(Log.LOOP_FAILED, loop=self.spec.name, pid=pid, status=status, restart_in_seconds=pause)
            await asyncio.sleep(pause)
            if not self._stopping:
                await self.start()

    async def stop(self, *, grace_seconds: float) -> None:
        """Ends the process, forcefully after `grace_seconds`. Idempotent."""
        self._stopping = True
        if self._spare is not None and self._spare.returncode is None:
            # It holds nothing anybody would miss.
            _signal(self._spare.pid, signal.SIGKILL)
            await self._spare.wait()
        process = self._process
        if process is None or process.returncode is not None:
            return
        _signal(process.pid, signal.SIGTERM)
        try:
            async with asyncio.timeout(grace_seconds):
                await process.wait()
        except TimeoutError:
            _signal(process.pid, signal.SIGKILL)
            await process.wait()
        log.info(Log.STOPPED, name=self.spec.name, status=process.returncode)

    def _status(self) -> int | None:
        return self._process.returncode if self._process else None


def child_environment(
    settings: Mapping[str, str], parent_pid: int, *, without: Sequence[str]
) -> dict[str, str]:
    """Environment of a worker: ours and the settings, less the keys it has no use for."""
    environment = dict(os.environ) | dict(settings)
    for name in without:
        environment.pop(name, None)
    root = str(Path(__file__).resolve().parents[2])
    paths: Sequence[str] = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    environment[_PARENT] = str(parent_pid)
    return environment


def end_with_parent() -> None:
    """In a worker: ends this process when its daemon is gone. Without one, does nothing."""
    parent = os.environ.get(_PARENT)
    if parent is None:
        return

    def watch() -> None:
        # A daemon that was killed cannot stop its workers; an orphan would hold models and leases.
        while os.getppid() == int(parent):
            time.sleep(_ORPHAN_POLL_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_ORPHAN_SECONDS)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="orphan-watch", daemon=True).start()


async def _told(spare: asyncio.subprocess.Process) -> bool:
    """Whether the spare process heard that its time has come."""
    if spare.returncode is not None or spare.stdin is None:
        return False
    try:
        spare.stdin.write(GO)
        await spare.stdin.drain()
        spare.stdin.close()
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        log.debug(Log.STOPPED, pid=pid)
