"""A spare worker imports on idle time, and becomes the worker when it is told to."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from worker.node import spare
from worker.node.children import GO

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="classes of threads are Linux's")
AT_ONCE = "def warm_up():\n    print('warm', flush=True)\n"
NEVER_READY = "import time\n\ndef warm_up():\n    print('warm', flush=True)\n    time.sleep(600)\n"
# Celery asks the module for its app; it gets none, and hears as what it was asked for it.
TELLS = """
import os
from pathlib import Path

def __getattr__(name):
    if name == "app":
        group = Path("/proc/self/autogroup")
        share = group.read_text() if group.exists() else ""
        print(f"class {os.sched_getscheduler(0)}", share, sep="\\n", flush=True)
    raise AttributeError(name)
"""


@contextmanager
def waiting(folder: Path, code: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A spare of an app with this code, to become Celery with these arguments; it warms up in the block."""
    (folder / "spared_app.py").write_text(code)
    paths = os.pathsep.join([str(folder), str(Path(__file__).parents[3])])
    process = subprocess.Popen(
        [sys.executable, "-m", "worker.node.spare", "spared_app", *(arguments or ["--version"])],
        env=os.environ | {"PYTHONPATH": paths},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"warm\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("code", [AT_ONCE, NEVER_READY], ids=["ready", "not ready yet"])
def test_it_becomes_the_worker_when_told(tmp_path: Path, code: str) -> None:
    with waiting(tmp_path, code) as process:
        out, _ = process.communicate(GO, timeout=60)
        assert process.returncode == 0
        assert out.decode().split(" ")[0].count(".") == 2


def test_it_ends_with_its_input(tmp_path: Path) -> None:
    with waiting(tmp_path, AT_ONCE) as process:
        out, _ = process.communicate(timeout=60)
        assert (process.returncode, out) == (0, b"")


@LINUX
def test_only_what_it_imports_runs_on_idle_time() -> None:
    found: list[int] = []
    before = os.sched_getscheduler(0)
    spare.idly(lambda: found.append(os.sched_getscheduler(0))).join()
    assert found == [os.SCHED_IDLE]
    assert os.sched_getscheduler(0) == before


@LINUX
def test_its_session_yields_while_it_waits(tmp_path: Path) -> None:
    with waiting(tmp_path, AT_ONCE) as process:
        group = Path(f"/proc/{process.pid}/autogroup")
        # Where sessions have no shares there is nothing to yield.
        assert not group.exists() or group.read_text().endswith("nice 19\n")


@LINUX
@pytest.mark.parametrize("warm_up", [AT_ONCE, NEVER_READY], ids=["ready", "not ready yet"])
def test_as_the_worker_it_has_its_class_and_its_share_again(tmp_path: Path, warm_up: str) -> None:
    with waiting(tmp_path, warm_up + TELLS, "-A", "spared_app", "report") as process:
        out, _ = process.communicate(GO, timeout=60)
        told = out.decode().splitlines()
        assert f"class {os.SCHED_OTHER}" in told
        assert not any(line.endswith("nice 19") for line in told)
        assert any(line.endswith("nice 0") for line in told) == Path("/proc/self/autogroup").exists()


class Refuses:
    """A share of sessions that cannot be set for the first few times."""

    def __init__(self, *errors: type[OSError]) -> None:
        self.errors = list(errors)
        self.written = ""

    def exists(self) -> bool:
        return True

    def write_text(self, text: str) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.written = text


@pytest.mark.parametrize(
    ("errors", "written"),
    [((BlockingIOError, BlockingIOError), "7"), ((PermissionError,), "")],
    ids=["busy", "read-only"],
)
def test_a_share_that_cannot_be_set_is_set_later_or_left(
    monkeypatch: pytest.MonkeyPatch, errors: tuple[type[OSError], ...], written: str
) -> None:
    group = Refuses(*errors)
    monkeypatch.setattr(spare, "_SESSION", group)
    spare.share_session(7)
    assert group.written == written
