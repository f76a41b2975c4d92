"""Options every suite shares."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.house import gate

pytest_plugins = ["pytester"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--strict-skips", action="store_true", help="a skipped test fails the run")
    parser.addoption("--counts", type=Path, help="writes [passed, failed, skipped] to this file")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuses a marked test in a file that its suite does not read: nothing would run it."""
    read = {marker: set(gate.marked(marker)) for marker in gate.LADDER[:-1]}
    for item in items:
        carried = [marker for marker in gate.LADDER if item.get_closest_marker(marker)]
        if carried and carried[-1] != "e2e" and item.location[0] not in read[carried[-1]]:
            raise pytest.UsageError(
                f"{item.nodeid} is marked {carried[-1]}, and its suite does not read that file"
            )


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:
        return
    passed, skipped = (reporter.stats.get(kind, []) for kind in ("passed", "skipped"))
    failed = [*reporter.stats.get("failed", []), *reporter.stats.get("error", [])]
    if counts := session.config.getoption("--counts"):
        counts.write_text(json.dumps([len(passed), len(failed), len(skipped)]))
    if skipped and exitstatus == pytest.ExitCode.OK and session.config.getoption("--strict-skips"):
        names = ", ".join(report.nodeid for report in skipped)
        reporter.write_line(f"{len(skipped)} tests were skipped, none may be: {names}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
