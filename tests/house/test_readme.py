"""The commands of the README are the ones that work, and CI runs them."""

from __future__ import annotations

import os
import re

from tests.house.tree import ROOT

README = (ROOT / "README.md").read_text()


def test_readme_needs_two_commands_and_nothing_else() -> None:
    shell = "\n".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL))
    assert re.findall(r"^(\S+)", shell, re.MULTILINE) == ["scripts/run", "scripts/test"]


def test_scripts_are_executable_and_short() -> None:
    for script in [*(ROOT / "scripts").iterdir(), ROOT / ".ci" / "run"]:
        assert os.access(script, os.X_OK), script
        assert len(script.read_text().splitlines()) <= 100, script


def test_ci_runs_the_second_command() -> None:
    assert "scripts/test --all" in (ROOT / ".ci" / "run").read_text()
