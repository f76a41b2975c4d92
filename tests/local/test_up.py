"""Starting a market: what can go wrong before anything runs, and what the person is told."""

from __future__ import annotations

import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from marketplace.chain.deployment import Deployment
from marketplace.local import commands, ports, treasury, up
from marketplace.local.layout import Layout
from marketplace.local.market import Market
from marketplace.local.options import UpOptions
from marketplace.local.screen import Screen
from marketplace.local.up import INTERRUPTED, run_up
from marketplace.protocol.errors import Broken
from tests.local.programs import Recorder
from tests.local.test_local_parts import MARKET

DEPLOYMENT = Deployment(
    chain_id=31_337,
    genesis_hash=b"\1" * 32,
    deployed_block=1,
    token="0x" + "11" * 20,
    registry="0x" + "22" * 20,
    escrow="0x" + "33" * 20,
    court="0x" + "44" * 20,
    treasury="0x" + "44" * 20,
    token_symbol="TUSD",
    token_decimals=6,
    min_stake_atoms=1,
    max_session_seconds=86_400,
    grace_seconds=120,
    challenge_seconds=21_600,
)


@pytest.fixture
def options(tmp_path: Path) -> UpOptions:
    """A checkout whose Node.js always fails, so that nothing is ever started."""
    (tmp_path / "hardhat.config.js").touch()
    (tmp_path / "package-lock.json").touch()
    return UpOptions(data_dir=tmp_path / "data", models_dir=tmp_path / "models", root=tmp_path)


def test_packages_that_cannot_be_installed_name_the_remedy(
    options: UpOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Recorder()
    broken = tmp_path / "bin" / "node"
    broken.parent.mkdir()
    broken.write_text(f"#!{sys.executable}\nimport sys\nsys.exit('no space left')\n")
    broken.chmod(0o755)
    monkeypatch.setattr(up, "find_hardhat", lambda root: up.Hardhat(broken, root))
    assert run_up(options, screen=screen, stop=threading.Event()) == 1
    assert screen.problems[0][0] == (
        "Node packages could not be installed (no space left); run scripts/setup run"
    )
    assert not Layout(options.data_dir).run.exists()


def test_taken_port_is_told_before_anything_starts(options: UpOptions) -> None:
    screen = Recorder()
    with ports.socket.create_server((ports.HOST, 0)) as taken:
        number = taken.getsockname()[1]
        assert run_up(replace(options, port=number), screen=screen, stop=threading.Event()) == 1
    assert screen.problems[0][0].startswith(f"port {number} is taken")
    assert [step for step in screen.steps if step[1] == "begin"] == []


def test_signal_during_what_runs_on_the_market_stops_it(
    options: UpOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(up._Run, "_start", lambda _self: MARKET)

    def interrupted(_market: Market, _screen: Screen) -> int:
        up.signal.raise_signal(up.signal.SIGTERM)
        raise AssertionError("not reached")

    assert run_up(options, screen=Recorder(), then=interrupted) == INTERRUPTED


def test_code_of_what_runs_on_the_market_is_the_code_of_the_run(
    options: UpOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(up._Run, "_start", lambda _self: MARKET)
    assert run_up(options, screen=Recorder(), then=lambda _market, _screen: 7) == 7


def test_each_node_has_a_database_of_its_own_at_the_bundled_broker() -> None:
    where = commands.Addresses(rpc_url="r", gateway_port=1, broker_url="redis://127.0.0.1:7")
    assert [up._own_database(where, i).broker_url[-2:] for i in range(3)] == ["/0", "/1", "/2"]
    for named in ("redis://h:1/5", "amqp://guest:guest@h:1//"):
        assert up._own_database(replace(where, broker_url=named), 2).broker_url == named


def test_gateway_that_does_not_answer_is_named() -> None:
    url = f"http://{ports.HOST}:{ports.free_port()}"
    opening = treasury.Opening(url, DEPLOYMENT, treasury.buyers()[0])
    with pytest.raises(Broken, match="does not answer /v1/keys"):
        opening.create_key()


def test_wallets_of_roles_do_not_overlap() -> None:
    roles = [treasury.relayer(), *(treasury.owner(i) for i in range(3)), *treasury.buyers()]
    assert len({wallet.address for wallet in roles}) == len(roles)
