"""The commands of the guide and of the operations page, run as they are printed there."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from marketplace.chain import calls, networks
from marketplace.chain.params import check
from marketplace.protocol.hexes import to_hex
from tests.cli.conftest import Watt
from tests.cli.on_chain import RELAYER, wallet
from tests.client.courtroom import BUYER, Courtroom
from tests.client.fake_market import FakeMarket
from tests.hardhat import ROOT, TREASURY

GUIDE = (ROOT / "docs" / "guide.md").read_text()
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()


def commands(heading: str) -> list[str]:
    """Lines of the shell blocks below one heading of the guide."""
    section = GUIDE.split(f"### {heading}\n")[1].split("\n#")[0]
    return [
        line for block in re.findall(r"```sh\n(.*?)```", section, re.DOTALL) for line in block.splitlines()
    ]


def run(watt: Watt, line: str, **names: str) -> str:
    """Runs a line as a shell would, its capitals replaced; its output, which may go to a file."""
    for name, value in names.items():
        line = line.replace(name, value)
    words, _, target = line.partition(" > ")
    program, *arguments = shlex.split(words)
    assert program == "watt"
    done = watt(*arguments)
    assert done.code == 0, f"{line}\n{done.out}\n{done.err}"
    if target:
        Path(target).write_text(done.out)
    return done.out


@pytest.mark.chain
def test_agent_of_the_guide(watt: Watt, room: Courtroom) -> None:
    create, listed, shown, ask, revoke = commands("Let an agent spend, so far and no further")
    run(watt, create)
    assert "agent" in run(watt, listed)
    assert "left" in run(watt, shown)
    # Asking takes a model; `tests/e2e` does that with such a key. Its file is where the guide says.
    assert Path(shlex.split(ask)[-1]).exists()
    run(watt, revoke)


@pytest.mark.chain
def test_gasless_wishes_of_the_guide(watt: Watt, room: Courtroom, tmp_path: Path) -> None:
    wallet(tmp_path, RELAYER).rename(tmp_path / "relayer.key")
    before = room.account()
    room.chain.send(BUYER, calls.faucet(room.chain.deployment, BUYER.address, 2_000_000))
    for line in commands("Without gas"):
        run(watt, line)
    assert room.account() == before + 2_000_000
    assert room.chain.client.key(BUYER.address, _key_of(tmp_path)).total_atoms == 1_000_000


@pytest.mark.chain
def test_sessions_of_the_guide(watt: Watt, room: Courtroom) -> None:
    session = to_hex(room.session_id)
    for line in commands("Sessions by hand"):
        if "expire" in line:
            room.chain.node.increase_time(3_600 + room.chain.deployment.grace_seconds)
        run(watt, line, SESSION=session)


@pytest.mark.chain
def test_dispute_of_the_guide(watt: Watt, room: Courtroom) -> None:
    room.claim(room.bundle())
    session = to_hex(room.session_id)
    for line in commands("When a receipt is not right"):
        if "advance" in line:
            room.chain.node.increase_time(120)
        run(watt, line, SESSION=session, SEQ="1")
    assert "upheld" in watt("dispute", "show", f"{session}:1").out


def test_file_of_inputs_of_the_guide(watt: Watt, market: FakeMarket, tmp_path: Path) -> None:
    (tmp_path / "reviews.jsonl").write_text('{"text": "good"}\n{"text": "bad"}\n')
    dry, bought, verified = (run(watt, line) for line in commands("A file of inputs"))
    assert "2 rows" in dry
    assert "2 of 2 done" in bought
    assert "2 of 2 verified" in verified


def test_flow_of_the_guide(watt: Watt, market: FakeMarket, tmp_path: Path) -> None:
    market.names |= {"all-minilm-l6-v2", "smollm2-135m-instruct"}
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    (tmp_path / "texts.txt").write_text("good\nbad\n")
    check, dry, _, shown = (run(watt, line) for line in commands("A flow of steps"))
    assert "✓ 3 steps" in check
    assert "summarise" in dry
    assert shown.splitlines()[-1].endswith("\t2")


def test_flow_of_the_guide_is_the_example() -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL)
    assert (ROOT / "examples" / "summarise.toml").read_text().endswith(text)


def test_network_file_of_the_operations_page_is_one(tmp_path: Path) -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", OPERATIONS, re.DOTALL)
    (tmp_path / "mine.toml").write_text(text.replace("0x…", TREASURY))
    mine, theirs = networks.load(str(tmp_path / "mine.toml")), networks.load("base-sepolia")
    assert mine.params(TREASURY) == theirs.params(TREASURY)
    assert mine.treasury == TREASURY
    check(mine.params(TREASURY))


def _key_of(folder: Path) -> str:
    from marketplace.client.keyfile import load_key

    return load_key(folder / ".watt" / "keys" / "agent.key").address
