from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from marketplace.cli import app as apps
from marketplace.cli.app import app
from marketplace.protocol.errors import BadRequest, ErrorCode
from tests.cli.conftest import Watt

HEAVY = (
    "web3",
    "torch",
    "fastapi",
    "sqlmodel",
    "celery",
    "httpx2",
    "mcp",
    "eth_account",
    "transformers",
)

GROUPS = {
    (),
    ("receipt",),
    ("wallet",),
    ("session",),
    ("keys",),
    ("flow",),
    ("config",),
    ("dispute",),
    ("juror",),
    ("audit",),
    ("webhooks",),
}


def commands(command: object, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    children = getattr(command, "commands", None) or {}
    found = [path]
    for name, child in children.items():
        if name != "node":
            found += commands(child, (*path, name))
    return found


def every_command() -> list[tuple[str, ...]]:
    import typer

    return commands(typer.main.get_command(app))


@pytest.mark.parametrize("path", every_command(), ids=" ".join)
def test_help_fits_80_columns_and_shows_examples(watt: Watt, path: tuple[str, ...]) -> None:
    ran = watt(*path, "--help")
    assert ran.code == 0
    assert max(len(line) for line in ran.out.splitlines()) <= 80
    assert (path in GROUPS and path) or "Examples:" in ran.out


# What `audit open` prints is JSON anyway.
ASKED_FOR_JSON = [
    path
    for path in every_command()
    if (len(path) > 1 or path in [("run",), ("up",), ("deploy",), ("proxy",)]) and path != ("audit", "open")
]


@pytest.mark.parametrize("path", ASKED_FOR_JSON)
def test_every_command_offers_json(watt: Watt, path: tuple[str, ...]) -> None:
    assert "--json" in watt(*path, "--help").out


def imported_by(*arguments: str) -> list[str]:
    code = (
        "import sys, json, contextlib, io\n"
        "from marketplace.cli.app import invoke\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n"
        f"    invoke({list(arguments)!r})\n"
        f"print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return list(json.loads(out.stdout))


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("run", "--help"),
        ("proxy", "--help"),
        ("mcp", "--json"),
        ("version",),
        ("config", "show"),
    ],
)
def test_help_imports_nothing_heavy(arguments: tuple[str, ...]) -> None:
    assert imported_by(*arguments) == []


def test_help_is_quick() -> None:
    """In modules beyond those of any command of its kind; seconds would be the machine's."""
    bare = "import typer; a = typer.Typer(); a.command()(lambda: None)"
    ours = "from marketplace.cli.app import app as a"
    assert loaded_for_help(ours) < loaded_for_help(bare) + 100


def loaded_for_help(app: str) -> int:
    code = f"import sys; {app}; a(['--help'], standalone_mode=False); print(len(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(out.stdout.splitlines()[-1])


def test_node_commands_arrive_through_the_entry_point(watt: Watt) -> None:
    assert "start" in watt("node", "--help").out
    assert watt("node", "bogus").code == 2


def test_missing_package_is_answered_with_its_remedy(watt: Watt, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def load(self) -> None:
            raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(apps, "_entry_points", lambda: {"node": Broken()})
    ran = watt("node", "start")
    assert ran.code == 1
    assert "torch" in ran.err
    assert "pip install 'wattline[node]'" in ran.err
    monkeypatch.setattr(apps, "_entry_points", dict)
    assert "pip install 'wattline[node]'" in watt("node", "start").err


@pytest.mark.parametrize("name", ["fastapi", "uvicorn"])
def test_missing_server_of_the_proxy_is_answered_with_its_remedy(
    watt: Watt, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for loaded in [n for n in sys.modules if n.startswith(("marketplace.proxy", f"{name}."))]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, name, None)
    ran = watt("proxy")
    assert ran.code == 1
    assert "pip install 'wattline[proxy]'" in ran.err


def test_commands_of_other_packages_run_under_their_name(watt: Watt, monkeypatch: pytest.MonkeyPatch) -> None:
    import typer

    extra = typer.Typer()
    extra.callback()(lambda: None)
    extra.command("hello")(lambda: print("hello from afar"))

    class Point:
        def load(self) -> typer.Typer:
            return extra

    monkeypatch.setattr(apps, "_entry_points", lambda: {"afar": Point()})
    assert watt("afar", "hello").out == "hello from afar\n"


def test_up_hands_its_options_to_the_supervisor(
    watt: Watt, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from marketplace.cli import uprun

    seen = []
    monkeypatch.setattr(uprun, "run_up", lambda options, **_: seen.append(options) or 0)
    assert watt("up", "--port", 9000, "--data-dir", tmp_path / "d", "--plain").code == 0
    assert (seen[0].port, seen[0].data_dir, seen[0].style) == (9000, tmp_path / "d", "plain")
    assert watt("up", "--ephemeral", "--json").code == 0
    assert not seen[1].data_dir.exists()
    assert seen[1].style == "json"


def test_up_once_asks_the_market_it_started(watt: Watt, monkeypatch: pytest.MonkeyPatch) -> None:
    from marketplace.cli import uprun, work

    asked = []
    monkeypatch.setattr(uprun, "run_up", lambda options, then: then(None, None))
    monkeypatch.setattr(work, "run", lambda prompt, data_dir: asked.append((prompt, data_dir)))
    assert watt("up", "--data-dir", "d", "--once", "hi").code == 0
    assert asked == [("hi", Path("d"))]


def test_up_once_ends_with_the_code_of_its_question(watt: Watt, monkeypatch: pytest.MonkeyPatch) -> None:
    from marketplace.cli import uprun, work

    def dear(prompt: str, data_dir: Path) -> None:
        raise BadRequest(ErrorCode.PRICE_ABOVE_MAX)

    monkeypatch.setattr(uprun, "run_up", lambda options, then: then(None, None))
    monkeypatch.setattr(work, "run", dear)
    ran = watt("up", "--ephemeral", "--once", "hi")
    assert ran.code == 4
    assert "price_above_max" in ran.err
    monkeypatch.setattr(uprun, "run_up", lambda options, then: 1)
    assert watt("up", "--ephemeral", "--once", "hi").code == 1
