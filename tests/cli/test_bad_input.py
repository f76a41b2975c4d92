"""What people mistype is refused with a remedy before anything is signed or sent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from marketplace.chain.rpc import Rpc
from marketplace.cli import screen
from marketplace.protocol.errors import BadRequest, ErrorCode
from tests.cli.conftest import Watt
from tests.client.fake_market import FakeMarket
from tests.client.fakes import DEPLOYMENT

MISTYPED = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAeD"


@pytest.mark.parametrize(
    "arguments",
    [
        ("wallet", "withdraw", "1", "--to", MISTYPED),
        ("keys", "create", "agent", "--cap", "1", "--address", MISTYPED),
        ("keys", "revoke", MISTYPED),
        ("session", "open", "--node", "1", "--amount", "1", "--key", MISTYPED),
        ("deploy", "--network", "local", "--treasury", MISTYPED),
    ],
)
def test_address_with_a_mistyped_digit_is_a_usage_error(watt: Watt, arguments: tuple[str, ...]) -> None:
    ran = watt(*arguments)
    assert ran.code == 2
    assert "mistyped" in ran.err


def test_network_file_with_a_mistyped_treasury_is_refused(watt: Watt, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(f'chain_id = 1\ntreasury = "{MISTYPED}"\n')
    ran = watt("deploy", "--network", "mine.toml", "--dry-run")
    assert ran.code == 1
    assert "mistyped" in ran.err


@pytest.mark.parametrize("node", ["-1", "0", "4294967296", "5000000000", "x"])
def test_node_that_no_id_can_be_is_a_usage_error(watt: Watt, node: str) -> None:
    assert watt("session", "open", "--node", node, "--amount", "1").code == 2
    assert watt("session", "open", "--node", node, "--amount", "1", "--direct").code == 2
    assert watt("keys", "bearer", "--node", node).code == 2
    assert watt("run", "hello", "--node", node).code == 2
    assert watt("quote", "hello", "--node", node).code == 2
    assert watt("keys", "create", "agent", "--cap", "1", "--nodes", f"1,{node}").code == 2


@pytest.mark.parametrize("nodes", ["9" * 5000, "99999999999", "\u0661", ",,0"])
def test_list_that_no_node_is_on_is_not_signed(watt: Watt, nodes: str) -> None:
    assert watt("keys", "create", "agent", "--cap", "1", "--nodes", nodes).code == 2


def test_time_of_nothing_is_a_usage_error(watt: Watt) -> None:
    assert watt("keys", "create", "agent", "--cap", "1", "--for", "0h").code == 2
    assert watt("wallet", "deposit", "1", "--gasless", "--valid", "0s").code == 2


@pytest.mark.parametrize("content", [b"", b"null", b"5", b"[]", b'{"close": 1}', b"\xff\xfe", b'{"a":'])
def test_file_that_is_not_what_was_asked_for_says_what_is(watt: Watt, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    for command in ("wallet", "keys"):
        assert watt(command, "submit", "file").code == 1
    ran = watt("session", "close", "0x" + "ab" * 32, "--consent", "file")
    assert (ran.code, "no signed consent" in ran.err) == (1, True)


def test_prompt_that_is_no_text_is_refused_before_anything_is_paid(watt: Watt, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    ran = watt("run", "what is this?", "--file", str(tmp_path / "photo.jpg"))
    assert ran.code == 1
    assert "not text" in ran.err


@pytest.mark.parametrize("signature", [None, 5, [], "x", "0x1"])
def test_consent_without_a_signature_is_refused(watt: Watt, tmp_path: Path, signature: object) -> None:
    consent = {"close": {"sessionId": "0x" + "ab" * 32, "minPaid": "0"}, "signature": signature}
    (tmp_path / "consent.json").write_text(json.dumps(consent))
    ran = watt("session", "close", "0x" + "ab" * 32, "--consent", "consent.json")
    assert (ran.code, "Ask the node for one." in ran.err) == (1, True)


def test_stdin_that_is_no_text_is_refused(watt: Watt, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe"), encoding="utf-8"))
    ran = watt("keys", "submit", "-")
    assert (ran.code, "no text in UTF-8" in ran.err) == (1, True)


def test_passphrase_and_key_files_that_cannot_be_read_are_named(watt: Watt, tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    (tmp_path / "bytes").chmod(0o600)
    for file, code in (("none", 3), ("bytes", 1)):
        assert watt("wallet", "new", "--out", "w.json", "--passphrase-file", file).code == code
        assert watt("wallet", "show", "--wallet", "bytes", "--passphrase-file", file).code == code
    ran = watt("wallet", "show", "--wallet", "bytes")
    assert (ran.code, "holds no private key" in ran.err) == (1, True)


def test_wallet_that_cannot_be_written_is_refused(watt: Watt, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ran = watt("wallet", "new", "--plain", "--out", "file/wallet.json")
    assert (ran.code, "cannot be written" in ran.err) == (1, True)


@pytest.mark.parametrize(
    "line",
    ["chain_id = -1", "chain_id = 1\nconfirmations = 0", "chain_id = 1\ntoken_decimals = 300", "\udcff"],
)
def test_network_file_with_impossible_numbers_is_refused(watt: Watt, tmp_path: Path, line: str) -> None:
    (tmp_path / "odd.toml").write_bytes(line.encode(errors="surrogateescape"))
    ran = watt("deploy", "--network", "odd.toml", "--dry-run")
    assert (ran.code, "odd" in ran.err) == (3 if line == "\udcff" else 1, True)


@pytest.mark.parametrize("url", ["", "foo", "http://", "http://[x", "http://127.0.0.1:99999", "ftp://x"])
def test_rpc_address_that_is_none_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(BadRequest, match="the RPC's address is none"):
        Rpc(url)


@pytest.mark.parametrize("url", ["http://[x", "http://127.0.0.1:99999", "http://127.0.0.1:abc", "foo"])
def test_gateway_address_that_is_none_is_refused(watt: Watt, url: str) -> None:
    ran = watt("models", "--gateway", url)
    assert (ran.code, "--gateway URL" in ran.err) == (5, True)


@pytest.mark.parametrize("amount", ["9" * 30, "-1", "", "1e3"])
def test_amount_beyond_all_money_makes_no_key_and_no_session(
    watt: Watt, market: FakeMarket, tmp_path: Path, amount: str
) -> None:
    rich = DEPLOYMENT.to_json() | {"token_decimals": 18}
    (tmp_path / ".watt" / "deployment.json").write_text(json.dumps(rich))
    assert watt("keys", "bearer", "--amount", amount).code == 1
    assert [path for _, path, _ in market.calls if path != "/v1/nodes"] == []


def test_bearer_key_is_not_lost_when_a_session_does_not_open(
    watt: Watt, market: FakeMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = market.open_session
    no = ErrorCode.SESSION_UNDERFUNDED
    monkeypatch.setattr(market, "open_session", lambda b: no if b["open"]["nodeId"] == 2 else opened(b))
    ran = watt("keys", "bearer", "--amount", "3", "--node", 1, "--node", 2)
    assert ran.code == 4
    assert "OPENAI_API_KEY sk-watt-" in ran.err
    assert "from 1 sessions so far" in ran.err


@pytest.mark.parametrize("decimals", [10**80, -1, 256])
def test_deployment_with_impossible_decimals_is_refused(
    watt: Watt, market: FakeMarket, tmp_path: Path, decimals: int
) -> None:
    file = tmp_path / ".watt" / "deployment.json"
    file.write_text(json.dumps(DEPLOYMENT.to_json() | {"token_decimals": decimals}))
    ran = watt("wallet", "show")
    assert (ran.code, "token_decimals" in ran.err) == (1, True)


def test_moment_beyond_the_calendar_is_never() -> None:
    assert screen.when((1 << 48) - 1) == "never"
    assert screen.when(253_402_300_799) == "9999-12-31 23:59 UTC"
