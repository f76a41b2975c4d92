"""Commands that send transactions, as people type them, on a real chain."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from marketplace.chain import calls
from marketplace.chain.addressbook import AddressBook
from marketplace.chain.artifacts import NAMES
from marketplace.chain.deployment import Deployment
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.messages import Close
from tests.chain.test_rpc import FakeEndpoint, result
from tests.cli.conftest import Watt
from tests.cli.on_chain import RELAYER, saved, wallet
from tests.client.courtroom import BUYER, JURORS, NODE_KEY, PRICE_ATOMS, Courtroom, journal_with
from tests.hardhat import Chain, key

pytestmark = pytest.mark.chain


# ---------------------------------------------------------------------------------------------- keys


def test_key_is_made_granted_used_and_revoked(watt: Watt, room: Courtroom, tmp_path: Path) -> None:
    made = watt(
        *("keys", "create", "agent", "--cap", 5, "--per-session", "0.50", "--per-day", 2),
        *("--for", "48h", "--nodes", f"{room.node_id},77", "--json"),
    ).json
    assert (made["total_atoms"], made["per_session_atoms"], made["nodes"]) == (
        "5000000",
        "500000",
        [room.node_id, 77],
    )
    key_file = Path(made["key_file"])
    assert key_file.stat().st_mode & 0o077 == 0
    before = room.account()
    opened = watt(
        *("session", "open", "--node", room.node_id, "--amount", "0.25", "--direct"),
        *("--wallet", key_file, "--json"),
    )
    assert opened.code == 5
    assert "wei" in opened.out
    room.chain.node.set_balance(made["key"], 10**18)
    opened = watt(
        *("session", "open", "--node", room.node_id, "--amount", "0.25", "--direct"),
        *("--wallet", key_file, "--json"),
    )
    assert (opened.json["buyer"], opened.json["key"]) == (BUYER.address, made["key"])
    assert room.account() == before - 250_000
    session_id = opened.json["session_id"]
    topped = watt(
        *("session", "top-up", session_id, "--amount", "0.25", "--direct", "--wallet", key_file, "--json")
    )
    assert topped.json["deposited_atoms"] == "500000"
    above = watt(*("session", "top-up", session_id, "--amount", "0.01", "--direct", "--wallet", key_file))
    assert above.code == 5
    assert "Escrow_AboveSessionCap" in above.err
    (row,) = watt("keys", "list", "--json").json["keys"]
    assert (row["name"], row["left_atoms"], row["left_today_atoms"]) == ("agent", "4500000", "1500000")
    assert made["key"] in watt("keys", "list").out
    assert watt("keys", "revoke", "agent").code == 0
    assert watt("keys", "list", "--json").json["keys"][0]["live"] is False
    assert "over" in watt("keys", "list").out


def test_same_name_is_the_same_key_with_new_caps(watt: Watt, room: Courtroom) -> None:
    first = watt("keys", "create", "agent", "--cap", 5, "--json").json
    second = watt("keys", "create", "agent", "--cap", 1, "--json").json
    assert first["key"] == second["key"]
    assert watt("keys", "list", "--json").json["keys"][0]["left_atoms"] == "1000000"


def test_gasless_grant_is_sent_by_a_relayer(watt: Watt, room: Courtroom, tmp_path: Path) -> None:
    room.chain.node.set_balance(BUYER.address, 0)
    signed = watt("keys", "create", "agent", "--cap", 5, "--gasless")
    assert signed.code == 0
    assert json.loads(signed.out)["kind"] == "grant"
    (tmp_path / "grant.json").write_text(signed.out)
    relayer = wallet(tmp_path, RELAYER)
    sent = watt("keys", "submit", "grant.json", "--wallet", relayer, "--json").json
    assert sent["buyer"] == BUYER.address
    assert watt("keys", "list", "--json").json["keys"][0]["live"] is True
    again = watt("keys", "submit", "grant.json", "--wallet", relayer)
    assert again.code == 1
    assert "used or revoked" in again.err
    assert watt("wallet", "submit", "grant.json", "--wallet", relayer).code == 2


def test_key_that_exists_elsewhere_is_granted_without_its_secret(
    watt: Watt, room: Courtroom, tmp_path: Path
) -> None:
    made = watt("keys", "create", "theirs", "--cap", 1, "--address", key(9).address, "--json").json
    assert (made["key"], made["key_file"]) == (key(9).address, None)
    assert watt("keys", "revoke", key(9).address).code == 0


def test_no_secret_is_ever_printed(watt: Watt, room: Courtroom) -> None:
    made = watt("keys", "create", "agent", "--cap", 5, "--json")
    secret = Path(made.json["key_file"]).read_text().strip()
    shown = [watt("keys", "create", "agent", "--cap", 5), watt("keys", "list"), watt("config", "show")]
    shown += [watt("keys", "create", "agent", "--cap", 5, "--gasless"), made]
    for ran in shown:
        for hidden in (secret, BUYER.secret.hex()):
            assert hidden.removeprefix("0x") not in ran.out + ran.err


@pytest.mark.parametrize(
    "wrong",
    [
        ("Agent", "--cap", "5"),
        ("../agent", "--cap", "5"),
        ("agent", "--cap", "5", "--for", "soon"),
        ("agent", "--cap", "5", "--nodes", "1,two"),
        ("agent", "--cap", "5", "--address", "0x12"),
        ("agent",),
    ],
)
def test_key_that_makes_no_sense_is_a_usage_error(watt: Watt, here: Chain, wrong: tuple[str, ...]) -> None:
    assert watt("keys", "create", *wrong).code == 2


# ------------------------------------------------------------------------------------------- deposits


def test_deposits_by_permit_and_by_authorization(watt: Watt, here: Chain, tmp_path: Path) -> None:
    assert watt("wallet", "deposit", "2", "--faucet", "--permit").code == 0
    here.send(BUYER, calls.faucet(here.deployment, BUYER.address, 3_000_000))
    signed = watt("wallet", "deposit", "3", "--gasless", "--valid", "30m")
    (tmp_path / "deposit.json").write_text(signed.out)
    sent = watt("wallet", "submit", "deposit.json", "--wallet", wallet(tmp_path, RELAYER), "--json").json
    assert (sent["buyer"], sent["atoms"]) == (BUYER.address, "3000000")
    assert watt("wallet", "show", "--json").json["account"] == "5.00"
    assert watt("keys", "submit", "deposit.json").code == 2
    assert watt("wallet", "deposit", "1", "--permit", "--gasless").code == 2


def test_wallet_shows_what_became_of_a_transaction(watt: Watt, here: Chain) -> None:
    sent = watt("wallet", "deposit", "2", "--faucet", "--json").json
    shown = watt("wallet", "show", "--tx", sent["tx_hash"], "--json").json["transaction"]
    assert shown == {"tx_hash": sent["tx_hash"], "state": "mined", "block": sent["block"]}
    assert "mined in block" in watt("wallet", "show", "--tx", sent["tx_hash"]).out
    assert "not known" in watt("wallet", "show", "--tx", "0x" + "ab" * 32).out
    assert watt("wallet", "show", "--tx", "0x12").code == 2


# ------------------------------------------------------------------------------------------- sessions


def test_session_is_shown_closed_with_consent_and_expired(
    watt: Watt, room: Courtroom, tmp_path: Path
) -> None:
    session_id = to_hex(room.session_id)
    shown = watt("session", "show", session_id, "--json").json
    assert (shown["free_atoms"], shown["claim"]) == ("1000000", None)
    consent = Close(session_id=room.session_id, min_paid_atoms=0)
    signature = NODE_KEY.sign(consent, room.chain.deployment.domain)
    data = {"close": consent.to_json(), "signature": to_hex(signature)}
    (tmp_path / "consent.json").write_text(json.dumps(data))
    assert watt("session", "expire", session_id).code == 5
    assert watt("session", "close", session_id, "--consent", "consent.json", "--json").code == 0
    assert watt("session", "show", session_id, "--json").json["closed"] is True
    other = room.chain.open_session(BUYER, BUYER, room.node_id, 500_000)
    other_id = to_hex(other.digest(room.chain.deployment.domain))
    assert watt("session", "close", other_id, "--consent", "consent.json").code == 2
    room.chain.node.increase_time(3_600 + room.chain.deployment.grace_seconds)
    assert watt("session", "expire", other_id, "--json").json["session_id"] == other_id
    assert watt("session", "show", "0x" + "ab" * 32).code == 3


def test_claim_is_shown_and_finalised(watt: Watt, room: Courtroom) -> None:
    session_id = to_hex(room.session_id)
    room.claim(room.bundle())
    shown = watt("session", "show", session_id)
    assert "claimed" in shown.out
    early = watt("session", "finalise", session_id)
    assert (early.code, "Escrow_TooEarly" in early.err) == (5, True)
    room.chain.node.increase_time(room.chain.deployment.challenge_seconds)
    assert watt("session", "finalise", session_id, "--json").code == 0
    assert watt("session", "show", session_id, "--json").json["paid_atoms"] == str(PRICE_ATOMS)


# ------------------------------------------------------------------------------------------- disputes


def test_proof_pays_an_award(watt: Watt, room: Courtroom, tmp_path: Path) -> None:
    first = room.bundle()
    one, two = saved(first, tmp_path / "one.json"), saved(room.again(first), tmp_path / "two.json")
    assert watt("dispute", "proof", one, two, "--json").code == 0
    assert watt("dispute", "award", one, "--json").json["node_id"] == room.node_id
    assert watt("dispute", "award", one).code == 3
    fair = saved(room.bundle(seq=2), tmp_path / "fair.json")
    refused = watt("dispute", "proof", fair)
    assert (refused.code, "Court_NotAbovePrice" in refused.err) == (5, True)


def test_demand_asks_first_and_shows_what_comes_next(watt: Watt, room: Courtroom, tmp_path: Path) -> None:
    bundle = room.bundle()
    file = saved(bundle, tmp_path / "receipt.json")
    room.claim(bundle)
    unasked = watt("dispute", "demand", file)
    assert unasked.code == 1
    assert "→ Say --yes." in unasked.err
    case = watt("dispute", "demand", file, "--yes", "--json").json["case"]
    assert watt("dispute", "show", case, "--json").json["state"] == "demanded"
    assert "the money is the buyer's" in watt("dispute", "show", file).err
    room.chain.node.increase_time(120)
    assert watt("dispute", "advance", case, "--json").json["state"] == "upheld"
    assert watt("juror", "show", "--json").json["balance_atoms"] == "3000000"
    assert watt("juror", "withdraw", "3", "--json").code == 0
    assert watt("wallet", "deposit", "1").code == 0
    assert watt("wallet", "withdraw", "0.5", "--json").json["atoms"] == "500000"


def test_what_was_never_delivered_is_listed_and_demanded(watt: Watt, room: Courtroom, tmp_path: Path) -> None:
    session = to_hex(room.session_id)
    assert watt("dispute", "claims", session, "--json").json["jobs"] == []
    room.claim(room.bundle(1), room.bundle(2))
    first, second = watt("dispute", "claims", session, "--json").json["jobs"]
    assert (first["seq"], first["amount_atoms"], first["journal"]) == (1, str(PRICE_ATOMS), "unknown")
    assert (first["case"], first["disputable_until"] > room.chain.now()) == (None, True)
    case = watt("dispute", "demand", f"{session}:1", "--yes", "--json").json["case"]
    assert case == first["receipt"]
    assert watt("dispute", "show", f"{session}:1", "--json").json["case"] == case
    listed = watt("dispute", "claims", session).out.splitlines()
    assert listed[0].split("\t") == ["SEQ", "AMOUNT TUSD", "JOURNAL", "DISPUTABLE UNTIL", "CASE"]
    assert [row.split("\t")[-1] for row in listed[1:]] == [case, "-"]
    unnamed = watt("dispute", "challenge", f"{session}:2", "--yes")
    assert (unnamed.code, "--evidence" in unnamed.err) == (2, True)
    (tmp_path / "request.bin").write_bytes(b"what was asked")
    other = watt("dispute", "challenge", f"{session}:2", "--evidence", "request.bin", "--yes", "--json")
    assert other.json["case"] == second["receipt"]


def test_claimed_job_proves_a_second_receipt_but_no_overcharge(
    watt: Watt, room: Courtroom, tmp_path: Path
) -> None:
    delivered, session = room.bundle(), to_hex(room.session_id)
    file = saved(delivered, tmp_path / "one.json")
    room.claim(room.again(delivered))
    alone = watt("dispute", "proof", f"{session}:1")
    assert (alone.code, "the offer" in alone.err) == (1, True)
    assert watt("dispute", "proof", file, f"{session}:1").code == 0
    assert watt("dispute", "award", f"{session}:1").code == 0
    for wrong in (f"{session}:0", f"{session}:one", "0x12:1"):
        assert watt("dispute", "demand", wrong).code == 2
    assert watt("dispute", "demand", f"{session}:9", "--yes").code == 3
    assert watt("dispute", "award", to_hex(bytes(32))).code == 2


def test_demand_of_a_delivered_job_says_so_first(watt: Watt, room: Courtroom, tmp_path: Path) -> None:
    bundle = room.bundle()
    journal = journal_with(room, bundle, path=tmp_path / ".watt" / "client.db")
    journal.end_seat(
        room.session_id, 1, amount_atoms=PRICE_ATOMS, digest=bundle.receipt.digest(bundle.domain)
    )
    room.claim(bundle)
    assert "as delivered" in watt("dispute", "demand", f"{to_hex(room.session_id)}:1").err


def test_jurors_judge_a_challenged_job(watt: Watt, room: Courtroom, tmp_path: Path) -> None:
    bundle = room.bundle()
    file = saved(bundle, tmp_path / "receipt.json")
    room.claim(bundle)
    room.enrol_jurors()
    case = watt("dispute", "challenge", file, "--yes", "--json").json["case"]
    shown = watt("dispute", "show", case, "--evidence", file, "--json").json
    assert (shown["state"], shown["evidence_fits"]) == ("drawing", True)
    seated = room.seat_jurors(room.disputes().case_id(bundle))
    for juror in seated:
        assert (
            watt("juror", "commit", case, "guilty", "--wallet", wallet(tmp_path, juror), "--json").code == 0
        )
    for juror in seated:
        opened = watt("juror", "reveal", case, "--wallet", wallet(tmp_path, juror), "--json").json
        assert opened["verdict"] == "guilty"
    assert watt("dispute", "show", case, "--json").json["state"] == "upheld"
    assert watt("juror", "commit", case, "maybe").code == 2
    assert watt("juror", "reveal", case).code == 3


def test_juror_joins_and_leaves(watt: Watt, room: Courtroom, tmp_path: Path) -> None:
    room.enrol_jurors()
    file = wallet(tmp_path, JURORS[0])
    assert watt("juror", "enrol", "1", "--wallet", file, "--json").json["atoms"] == "1000000"
    assert watt("juror", "resign", "--wallet", file, "--json").code == 0
    assert "enrolled  no" in watt("juror", "show", "--wallet", file).out
    assert watt("juror", "withdraw", "6", "--wallet", file).code == 0


# --------------------------------------------------------------------------------------------- deploy


def test_deploy_says_what_it_would_do_then_does_it_once(watt: Watt, here: Chain, tmp_path: Path) -> None:
    book = tmp_path / "books" / "31337.json"
    height = here.client.head().number
    planned = watt("deploy", "--network", "local", "--out", book, "--dry-run", "--json").json
    assert not book.exists()
    assert here.client.head().number == height
    made = watt("deploy", "--network", "local", "--out", book, "--json").json
    assert planned["contracts"] == {k: v for k, v in made["contracts"].items() if k in planned["contracts"]}
    again = watt("deploy", "--network", "local", "--out", book, "--json").json
    assert (made["fresh"], again["fresh"], again["contracts"]) == (True, False, made["contracts"])
    assert here.client.head().number == height + 6
    listed = json.loads((tmp_path / "books" / "verify" / "31337" / "contracts.json").read_text())
    assert set(listed["contracts"]) == set(NAMES)
    assert AddressBook.load(book).deployment.treasury == BUYER.address


def test_deployed_book_is_kept_where_the_inputs_find_no_room(watt: Watt, here: Chain, tmp_path: Path) -> None:
    (tmp_path / "verify").write_text("")
    ran = watt("deploy", "--network", "local", "--out", tmp_path / "book.json")
    assert (ran.code, "cannot be written" in ran.err) == (1, True)
    (tmp_path / "verify").unlink()
    assert (
        watt("deploy", "--network", "local", "--out", tmp_path / "book.json", "--json").json["fresh"] is False
    )


def test_deployed_book_is_all_that_other_commands_need(
    watt: Watt, here: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = watt("deploy", "--network", "local", "--json").json
    monkeypatch.setenv("WATT_DEPLOYMENT_PATH", made["book"])
    assert watt("wallet", "deposit", "2", "--faucet").code == 0
    shown = watt("wallet", "show", "--json").json
    assert (shown["account"], shown["currency"]) == ("2.00", "TUSD")
    assert Deployment.load(Path(made["book"])).escrow == made["contracts"]["Escrow"]


def test_network_file_of_ones_own_is_deployed(watt: Watt, here: Chain, tmp_path: Path) -> None:
    token = here.deployment.token
    text = f'chain_id = 31337\ntoken = "{token}"\ntoken_symbol = "TUSD"\ntoken_decimals = 6\n'
    (tmp_path / "mine.toml").write_text(text)
    made = watt("deploy", "--network", "mine.toml", "--treasury", key(19).address, "--json").json
    assert "TestDollar" not in made["contracts"]
    assert AddressBook.load(Path(made["book"])).parameters.challenge_seconds == 6 * 3600
    (tmp_path / "short.toml").write_text(text + "[market]\nunstake_delay_seconds = 60\n")
    refused = watt("deploy", "--network", "short.toml", "--out", "other.json")
    assert refused.code == 1
    assert "unstake_delay_seconds is 60" in refused.err


@pytest.fixture
def base() -> Iterator[FakeEndpoint]:
    """An endpoint that says it is Base."""
    fake = FakeEndpoint()
    fake.answer = lambda method, _p: result("0x2105" if method == "eth_chainId" else None)
    yield fake
    fake.stop()


def test_deploy_refuses_test_keys_where_money_is_real(watt: Watt, here: Chain, base: FakeEndpoint) -> None:
    refused = watt("deploy", "--network", "base", "--rpc", base.url, "--treasury", key(19).address, "--yes")
    assert refused.code == 1
    assert "well-known test key" in refused.err


def test_deploy_refuses_a_chain_that_is_not_the_networks(watt: Watt, here: Chain) -> None:
    refused = watt("deploy", "--network", "base", "--treasury", key(19).address, "--yes")
    assert refused.code == 5
    assert "network base is chain 8453" in refused.err
    assert watt("deploy", "--network", "base", "--yes").code == 1
    assert watt("deploy", "--network", "nowhere").code == 3
