from __future__ import annotations

import json
from pathlib import Path

import pytest

from marketplace.cli import wiring
from marketplace.client.bundle import Bundle
from marketplace.client.verify import check_offline, failures
from marketplace.protocol.errors import ChainTrouble, ErrorCode
from marketplace.protocol.hexes import to_hex
from tests.cli.conftest import BUYER, Watt
from tests.client.fake_market import FakeMarket

PAID = {
    "job_id",
    "receipt_id",
    "trace_id",
    "node_id",
    "model",
    "model_id",
    "cost",
    "cost_atoms",
    "ceiling_atoms",
    "currency",
    "units_in",
    "units_out",
    "energy_millijoules",
    "verified",
    "acknowledged",
    "attempts",
}
ERROR = {"code", "message", "hint", "retryable", "charged", "request_id"}


def test_run_streams_the_answer_to_stdout_and_the_price_to_stderr(watt: Watt, market: FakeMarket) -> None:
    ran = watt("run", "hi")
    assert (ran.code, ran.out) == (0, "Hello, world\n")
    assert "paid 0.000012 TUSD" in ran.err
    assert "✓ verified" in ran.err


def test_run_json_is_one_object(watt: Watt, market: FakeMarket) -> None:
    found = watt("run", "hi", "--json").json
    assert set(found) == PAID | {"text", "finish"}
    assert (found["text"], found["cost"], found["cost_atoms"]) == ("Hello, world", "0.000012", "12")
    assert found["verified"] is True


def test_run_shows_how_likely_each_token_was(watt: Watt, market: FakeMarket) -> None:
    found = watt("run", "hi", "--logprobs", "1", "--json").json
    assert [row["logprob_micro"] for row in found["logprobs"]] == [-2_500_000] * 2
    rows = watt("run", "hi", "--logprobs", "1").out.splitlines()
    assert rows[0] == "Hello, world"
    assert rows[2] == "' é'\t8.2 %\t'\N{REPLACEMENT CHARACTER}' 90.5 %"
    assert watt("run", "hi", "--logprobs", "21").code == 2


def test_two_runs_share_one_session(watt: Watt, market: FakeMarket) -> None:
    assert [watt("run", "hi").code for _ in range(2)] == [0, 0]
    assert [order.seq for order in market.orders] == [1, 2]


def test_run_adds_a_file_and_a_system_message(watt: Watt, market: FakeMarket, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("the notes")
    assert watt("run", "Sum up", "--file", tmp_path / "notes.txt", "--system", "be brief").code == 0
    body = next(body for _, path, body in market.calls if path == "/v1/quotes")
    assert body["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "Sum up\n\nthe notes"},
    ]


def test_run_reads_stdin(watt: Watt, market: FakeMarket, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("from a pipe"))
    assert watt("run", "-").code == 0


def test_embed_gives_a_vector_a_line(watt: Watt, market: FakeMarket, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("one\n\ntwo\n")
    found = watt("embed", tmp_path / "lines.txt", "--model", "tiny-chat", "--json").json
    assert set(found) == PAID | {"vectors"}
    assert found["vectors"] == [[1.0, 2.0], [1.0, 2.0]]
    ran = watt("embed", tmp_path / "lines.txt", "--model", "tiny-chat")
    assert len(ran.out.splitlines()) == 2


def test_quote_lists_nodes_and_charges_nothing(watt: Watt, market: FakeMarket) -> None:
    found = watt("quote", "hi", "--json").json
    assert {q["node_id"] for q in found["quotes"]} == {1, 2}
    ran = watt("quote", "hi", "--max-tokens", 8)
    assert ran.code == 0
    assert ran.out.splitlines()[0].split("\t") == ["NODE", "MOST IT COSTS TUSD", "QUEUE", "WHY"]
    assert "up to 82 units in, up to 8 out · nothing charged" in ran.err
    market.counted = 5
    assert "5 units in, up to 256 out · nothing charged" in watt("quote", "hi").err
    assert market.orders == []


def test_models_and_nodes_are_listed(watt: Watt, market: FakeMarket) -> None:
    assert [m["id"] for m in watt("models", "--json").json["models"]] == ["tiny-chat"]
    assert [n["node_id"] for n in watt("nodes", "--json").json["nodes"]] == [1, 2]
    assert "tiny-chat\tchat\t2048" in watt("models").out
    assert market.nodes[1].signer.address in watt("nodes").out


def test_job_and_its_receipt_can_be_found_again(watt: Watt, market: FakeMarket, tmp_path: Path) -> None:
    ran = watt("run", "hi", "--json").json
    assert [j["job_id"] for j in watt("jobs", "--json").json["jobs"]] == [ran["job_id"]]
    assert watt("job", ran["job_id"], "--json").json["receipt_id"] == ran["receipt_id"]
    assert watt("cancel", ran["job_id"], "--json").json["job_id"] == ran["job_id"]
    assert ran["job_id"] in watt("job", ran["job_id"]).out
    assert "+840 ms  delivered" in watt("job", ran["job_id"]).out
    saved = tmp_path / "r.json"
    assert watt("receipt", "get", ran["receipt_id"], "--save", saved).code == 0
    assert json.loads(saved.read_text())["id"] == ran["receipt_id"]
    assert watt("receipt", "get", ran["receipt_id"], "--json").json["id"] == ran["receipt_id"]


def test_receipt_verifies_offline_and_on_chain(watt: Watt, market: FakeMarket, tmp_path: Path) -> None:
    saved = tmp_path / "r.json"
    assert watt("run", "hi", "--save", saved).code == 0
    market.down = True
    offline = watt("receipt", "verify", saved, "--json").json
    assert set(offline) == {"verified", "checks"}
    assert offline["verified"] is True
    assert {c["name"] for c in offline["checks"] if c["ok"] is None} == {
        "domain",
        "node",
        "session",
        "settlement",
    }
    chained = watt("receipt", "verify", saved, "--chain", "--json").json
    assert {c["name"] for c in chained["checks"] if c["ok"] is None} == {"settlement"}
    assert "✓ receipt signature" in watt("receipt", "verify", saved).out


def test_altered_receipt_fails_with_the_check_named(watt: Watt, market: FakeMarket, tmp_path: Path) -> None:
    saved = tmp_path / "r.json"
    watt("run", "hi", "--save", saved)
    data = json.loads(saved.read_text())
    data["chunks"] = data["chunks"][::-1]
    saved.write_text(json.dumps(data))
    ran = watt("receipt", "verify", saved)
    assert ran.code == 1
    assert "✗ response hash" in ran.out
    assert watt("receipt", "verify", saved, "--json").json["verified"] is False


def test_sessions_open_top_up_and_list(watt: Watt, market: FakeMarket) -> None:
    opened = watt("session", "open", "--node", 1, "--amount", "0.5", "--json").json
    keys = {"session_id", "node_id", "key", "deposited_atoms", "left_atoms", "expires_at"}
    assert set(opened) == keys
    assert opened["deposited_atoms"] == "500000"
    topped = watt("session", "top-up", opened["session_id"], "--amount", "0.25", "--json").json
    assert topped["deposited_atoms"] == "750000"
    assert watt("session", "list", "--json").json["sessions"] == [topped]
    assert opened["session_id"] in watt("session", "list").out
    assert "0.75 TUSD" in watt("session", "top-up", opened["session_id"], "--amount", "0").out


def test_bearer_key_has_a_session_with_every_online_node(watt: Watt, market: FakeMarket) -> None:
    found = watt("keys", "bearer", "--label", "agent", "--amount", "0.5", "--json").json
    assert set(found) == {"api_key", "address", "sessions"}
    assert [s["node_id"] for s in found["sessions"]] == [1, 2]
    assert {s["key"] for s in found["sessions"]} == {found["address"]}
    assert "OPENAI_API_KEY" in watt("keys", "bearer", "--node", 2).out


def test_wallet_new_keeps_the_key_from_others_and_shows_where(watt: Watt, tmp_path: Path) -> None:
    (tmp_path / "pass").write_text("secret\n")
    made = watt(
        "wallet", "new", "--out", tmp_path / "w.json", "--passphrase-file", tmp_path / "pass", "--json"
    ).json
    assert set(made) == {"address", "path", "encrypted"}
    assert made["encrypted"] is True
    assert (tmp_path / "w.json").stat().st_mode & 0o077 == 0
    assert watt("wallet", "new", "--out", tmp_path / "w.json", "--plain").code == 1
    plain = watt("wallet", "new", "--out", tmp_path / "p.key", "--plain", "--json").json
    assert plain["encrypted"] is False


def test_version_is_told(watt: Watt) -> None:
    assert set(watt("version", "--json").json) == {"wattline", "python"}
    assert watt("version").out.startswith("watt ")


def test_config_shows_origins_and_hides_secrets(watt: Watt, market: FakeMarket, monkeypatch) -> None:
    monkeypatch.setenv("WATT_RPC_URL", "http://env.test")
    ran = watt("config", "show", "--gateway", "http://flag.test", "--json")
    found = ran.json["settings"]
    assert found["gateway_url"] == {"value": "http://flag.test", "origin": "flag"}
    assert found["rpc_url"] == {"value": "http://env.test", "origin": "WATT_RPC_URL"}
    assert found["api_key"] == {"value": "set", "origin": "market.json"}
    assert "11" * 32 not in ran.out
    assert "sk-watt" not in watt("config", "show").out


# ------------------------------------------------------------------------------------------- how runs end


def test_usage_error_ends_with_2(watt: Watt) -> None:
    assert watt("bogus").code == 2
    assert watt("run").code == 2
    assert watt("run", "hi", "--max-tokens", 0).code == 2
    assert watt("quote", "hi", "--task", "paint").code == 2
    assert watt("session", "top-up", "nonsense", "--amount", "1").code == 2
    assert watt("job", "../../etc").code == 2


def test_unknown_thing_ends_with_3(watt: Watt, market: FakeMarket, tmp_path: Path) -> None:
    assert watt("job", "job_none").code == 3
    assert watt("receipt", "get", "rcpt_none").code == 3
    assert watt("run", "hi", "--model", "none").code == 3
    assert watt("receipt", "verify", tmp_path / "none.json").code == 3
    assert watt("embed", tmp_path / "none.txt").code == 3


def test_money_error_ends_with_4_and_names_the_price(watt: Watt, market: FakeMarket) -> None:
    ran = watt("run", "hi", "--max-cost", "0.00001")
    assert ran.code == 4
    assert "No node will do this for 0.00001 TUSD; the cheapest asks up to" in ran.err
    assert "price_above_max" in ran.err
    assert "→ --max-cost" in ran.err
    market.chain.accounts[BUYER.address] = 0
    ran = watt("run", "hi")
    assert ran.code == 4
    assert "watt wallet deposit" in ran.err


def test_network_error_ends_with_5(watt: Watt, market: FakeMarket, monkeypatch: pytest.MonkeyPatch) -> None:
    market.down = True
    ran = watt("models")
    assert ran.code == 5
    assert "→ Start one with `watt up`" in ran.err

    def no_chain(config: object) -> None:
        raise ChainTrouble(ErrorCode.CHAIN_UNAVAILABLE)

    market.down = False
    monkeypatch.setattr(wiring, "open_chain", no_chain)
    watt("run", "hi", "--save", "r.json")
    assert watt("receipt", "verify", "r.json", "--chain").code == 5


def test_node_failure_ends_with_1(watt: Watt, market: FakeMarket) -> None:
    market.nodes[1].behaviour = "overcharge"
    ran = watt("run", "hi", "--node", 1)
    assert ran.code == 1
    assert "receipt_invalid" in ran.err
    assert "price" in ran.err


@pytest.mark.parametrize("command", ["run", "embed"])
def test_receipt_that_does_not_hold_is_kept_for_a_proof(
    watt: Watt, market: FakeMarket, tmp_path: Path, command: str
) -> None:
    market.nodes[1].behaviour = "overcharge"
    (tmp_path / "lines.txt").write_text("one\n")
    ask = (command, "lines.txt", "--model", "tiny-chat")
    ran = watt(*ask, "--node", 1)
    (kept,) = (tmp_path / ".watt" / "faults").iterdir()
    assert (ran.code, f"watt dispute proof .watt/faults/{kept.name}" in ran.err) == (1, True)
    kept_checks = check_offline(Bundle.from_json(json.loads(kept.read_text())))
    assert "price" in [check.name for check in failures(kept_checks)]
    assert watt(*ask, "--node", 1, "--save", "bad.json").code == 1
    assert Bundle.from_json(json.loads(Path("bad.json").read_text())).node_id == 1
    unwritable = watt(*ask, "--node", 1, "--save", tmp_path)
    assert (unwritable.code, "is lost" in unwritable.err, "receipt_invalid" in unwritable.err) == (
        1,
        True,
        True,
    )


def test_receipt_that_does_not_hold_is_kept_where_another_node_does_the_job(
    watt: Watt, market: FakeMarket, tmp_path: Path
) -> None:
    market.nodes[1].behaviour = "overcharge"
    ran = watt("run", "hi", "--json", "--save", "good.json")
    assert (ran.json["node_id"], ran.json["attempts"]) == (2, 2)
    assert Bundle.from_json(json.loads(Path("good.json").read_text())).node_id == 2
    (kept,) = (tmp_path / ".watt" / "faults").iterdir()
    assert Bundle.from_json(json.loads(kept.read_text())).node_id == 1


def test_interrupt_ends_with_130(watt: Watt, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **_named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(wiring, "open_client", interrupted)
    assert watt("run", "hi").code == 130


def test_error_as_json_is_one_object_on_stdout(watt: Watt, market: FakeMarket) -> None:
    ran = watt("run", "hi", "--max-cost", "0.00001", "--json")
    assert ran.code == 4
    assert set(ran.json["error"]) >= ERROR
    assert ran.json["error"]["code"] == "price_above_max"
    assert ran.json["error"]["charged"] is False
    assert set(watt("job", "job_none", "--json").json["error"]) >= ERROR


def test_without_a_market_every_command_says_how_to_start_one(watt: Watt) -> None:
    ran = watt("run", "hi")
    assert ran.code == 5
    assert "watt up" in ran.err


def test_broken_profile_is_named(watt: Watt, tmp_path: Path) -> None:
    (tmp_path / ".watt").mkdir()
    (tmp_path / ".watt" / "market.json").write_text("{")
    ran = watt("models")
    assert ran.code == 1
    assert "market.json" in ran.err


def test_no_colour_code_reaches_a_pipe(watt: Watt, market: FakeMarket) -> None:
    for arguments in (("run", "hi"), ("job", "job_none"), ("nodes",), ("--help",)):
        ran = watt(*arguments)
        assert "\x1b" not in ran.out + ran.err


def test_no_color_is_honoured_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    from marketplace.cli import screen

    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert isinstance(screen.console(), Console)
    assert screen.console().no_color


def test_ids_are_whole_when_piped(watt: Watt, market: FakeMarket) -> None:
    opened = watt("session", "open", "--node", 1, "--amount", "0.5", "--json").json
    assert opened["session_id"] in watt("session", "list").out
    (session_id, _), *_ = market.chain.held
    assert opened["session_id"] == to_hex(session_id)
