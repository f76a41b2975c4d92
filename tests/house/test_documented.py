"""The reference pages say what the code says, and the prose names nothing that is not there."""

from __future__ import annotations

import re

import pytest

from marketplace.explain import errors
from marketplace.protocol.errors import ErrorCode
from tests.house import reference
from tests.house.tree import ROOT, python_files

# Between a node's own processes, and between a supervisor and its children.
INTERNAL = {"WATT_NODE_PARENT_PID"}
PROSE = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / reference.ERROR_PAGES).glob("*.md")),
]


@pytest.mark.parametrize("page", reference.PAGES)
def test_page_is_what_the_code_says(page: str) -> None:
    """Stale: run `python -m tests.house.reference` and commit what changed."""
    assert (ROOT / "docs" / page).read_text() == reference.PAGES[page]()


def test_no_page_is_left_of_an_error_code_that_is_gone() -> None:
    assert reference.left_over() == []


def test_somebody_wrote_about_every_error_code_and_about_no_other() -> None:
    assert set(errors.prose()) == {code.value for code in ErrorCode}
    for code, written in errors.prose().items():
        texts = (written.means, written.why, written.remedy, written.charged)
        assert [text for text in texts if not text.endswith(".")] == [], code
        assert written.run.startswith(("watt ", "curl ", "date ")), code


def test_every_setting_has_a_description() -> None:
    rows = re.findall(r"^\| `(WATT_\w+)` \|[^|]*\| (.*) \|$", reference.settings_page(), re.MULTILINE)
    assert len(rows) > 10
    assert [name for name, what in rows if not what.strip()] == []


def test_every_variable_the_code_reads_is_documented() -> None:
    read = {
        name
        for path in python_files("marketplace", "worker")
        for name in re.findall(r"\bWATT_[A-Z_]+[A-Z]\b", path.read_text())
    }
    pages = [*PROSE, *sorted((ROOT / "docs" / "reference").glob("*.md"))]
    documented = "\n".join(page.read_text() for page in pages)
    assert {name for name in read - INTERNAL if name not in documented} == set()


def test_prose_names_only_variables_that_exist() -> None:
    code = "\n".join(path.read_text() for path in python_files("marketplace", "worker", "tests/house"))
    known = reference.settings_page() + code
    named = {name for page in PROSE for name in re.findall(r"\bWATT_[A-Z_]+[A-Z]\b", page.read_text())}
    assert {name for name in named if name not in known} == set()


def test_prose_names_only_commands_that_exist() -> None:
    known = {path for path, _ in reference.commands()}
    groups = {" ".join(path.split()[:n]) for path in known for n in range(1, len(path.split()) + 1)}
    named = {
        " ".join(found.split())
        for page in PROSE
        for found in re.findall(r"\bwatt (?:[a-z]+ )?[a-z]+\b", _code(page.read_text()))
    }
    assert {name for name in named if not _known(name, groups)} == set()


def test_prose_names_only_files_that_exist() -> None:
    named = {
        (page, link)
        for page in PROSE
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)[^)]*\)", page.read_text())
    }
    assert {f"{page.name}: {link}" for page, link in named if not (page.parent / link).exists()} == set()


def test_each_decision_says_context_decision_and_consequences() -> None:
    pages = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert [int(page.name[:4]) for page in pages] == list(range(1, len(pages) + 1))
    for page in pages:
        heads = re.findall(r"^## (.+)$", page.read_text(), re.MULTILINE)
        assert heads == ["Context", "Decision", "Consequences"], page.name


def _known(name: str, groups: set[str]) -> bool:
    words = name.split()
    return any(" ".join(words[:n]) in groups for n in range(2, len(words) + 1))


def _code(text: str) -> str:
    """Only what is set as code; prose may speak of a watt."""
    return "\n".join(re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL))
