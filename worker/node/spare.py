"""A worker that waits with everything imported.

python -m worker.node.spare APP CELERY-ARGUMENTS…

Importing torch and transformers is most of what a fresh worker takes to start. A spare has done it when the
worker before it dies; told to go on its standard input, it becomes the worker. At the input's end it ends.

It imports on time that nobody else wants: an engine whose threads wait for each other all the time would
otherwise stand still while a spare has one of its cores.
"""

from __future__ import annotations

import importlib
import os
import runpy
import select
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from worker.node.children import GO, end_with_parent

# Linux shares cores among sessions first, so that a thread's own class alone does not count against another
# session's. Anybody may set his session's share back, but not twice within a tenth of a second.
_SESSION: Final = Path("/proc/self/autogroup")
_LEAST, _USUAL = 19, 0
_TRIES: Final = 20
_PAUSE_SECONDS: Final = 0.05
_POLL_SECONDS: Final = 0.2


def main(arguments: list[str]) -> int:
    """Waits, then runs Celery with these arguments; gives the exit status when it is not needed."""
    app, *celery = arguments
    share_session(_LEAST)
    end_with_parent()
    warming = idly(lambda: warm(app))
    while warming.is_alive() and not select.select([sys.stdin], [], [], _POLL_SECONDS)[0]:
        continue
    if sys.stdin.buffer.readline() != GO:
        return 0
    share_session(_USUAL)
    if warming.is_alive():
        # What its thread would still import it would import last of all: start as if there were no spare.
        os.execv(sys.executable, [sys.executable, "-m", "celery", *celery])  # noqa: S606 - ourselves
    sys.argv = ["celery", *celery]
    runpy.run_module("celery", run_name="__main__", alter_sys=True)
    return 0


def warm(app: str) -> None:
    """Imports the module of a Celery app, and what it says it will need."""
    module = importlib.import_module(app)
    getattr(module, "warm_up", lambda: None)()


def idly(work: Callable[[], object]) -> threading.Thread:
    """Starts `work` on a thread that runs when its core has nothing else to do."""

    def run() -> None:
        if hasattr(os, "SCHED_IDLE"):
            # Of this thread alone: without privileges there is no way back.
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        work()

    thread = threading.Thread(target=run, name="warm-up", daemon=True)
    thread.start()
    return thread


def share_session(nice: int) -> None:
    """Gives this session the share of `nice` where sessions have shares (man 7 sched)."""
    for _ in range(_TRIES if _SESSION.exists() else 0):
        try:
            _SESSION.write_text(str(nice))
        except BlockingIOError:
            time.sleep(_PAUSE_SECONDS)
        except OSError:
            # /proc may be read-only in a container; sessions have no shares in one either.
            return
        else:
            return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
