"""Keys, sessions, top-ups, accounts."""

from __future__ import annotations

import pytest

from marketplace.funding import step as funding
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.messages import Open, TopUp
from marketplace.protocol.signing import Signer
from marketplace.store import keys, outbox
from marketplace.store.tables import AccountRow
from tests.flow.gateway import BUYER, DEPLOYMENT, DOMAIN, NOW_AT, database_bytes, gateway

KEY = Signer(b"\x44" * 32)
STRANGER = Signer(b"\x66" * 32)


def opening(**changes):
    values = {
        "buyer": BUYER.address,
        "key": KEY.address,
        "node_id": 1,
        "amount_atoms": 500,
        "open_before": NOW_AT + 60,
        "expires_at": NOW_AT + 3600,
        "salt": bytes(32),
    }
    return Open(**(values | changes))


def signed(terms, signer=BUYER):
    return {"open": terms.to_json(), "signature": to_hex(signer.sign(terms, DOMAIN))}


async def test_bearer_keys_are_sealed_and_only_their_hash_is_kept(tmp_path):
    async with gateway(tmp_path) as g:
        secret, address = await g.new_key()
        with g.store.reading() as tx:
            row = keys.find(tx, address)
            held = funding.held_key(tx, g.market.vault, address)
        assert held.address == address
        assert held.secret not in row.sealed_key
        raw = database_bytes(tmp_path)
        assert held.secret not in raw
        assert held.secret.hex().encode() not in raw
        assert secret.encode() not in raw


async def test_open_goes_to_the_outbox_once(tmp_path):
    async with gateway(tmp_path) as g:
        g.put_node(1)
        body = signed(opening())
        first = await g.http.post("/v1/sessions", json=body)
        session_id = to_hex(opening().digest(DOMAIN))
        assert first.status_code == 202
        assert first.json() == {
            "session_id": session_id,
            "intent": f"open:{session_id}",
            "status": "waiting",
            "problem": None,
        }
        assert (await g.http.post("/v1/sessions", json=body)).json() == first.json()
        with g.store.reading() as tx:
            (entry,) = outbox.waiting(tx, limit=10)
        assert entry.wanted.contract == DEPLOYMENT.escrow
        shown = (await g.http.get(f"/v1/sessions/{session_id}")).json()
        assert (shown["status"], shown["asked_atoms"], shown["deposited_atoms"]) == ("opening", "500", "0")
        listed = (await g.http.get(f"/v1/sessions?key={KEY.address}")).json()["data"]
        assert [row["session_id"] for row in listed] == [session_id]


async def test_open_that_the_chain_refused_says_why(tmp_path):
    async with gateway(tmp_path) as g:
        g.put_node(1)
        made = (await g.http.post("/v1/sessions", json=signed(opening()))).json()
        with g.store.transaction() as tx:
            outbox.mark_failed(tx, made["intent"], "Escrow_AmountAboveAccount")
        shown = (await g.http.get(f"/v1/sessions/{made['session_id']}")).json()
        assert (shown["status"], shown["problem"]) == ("failed", "Escrow_AmountAboveAccount")


@pytest.mark.parametrize(
    ("code", "body"),
    [
        ("bad_signature", signed(opening(), STRANGER)),
        ("bad_signature", signed(opening()) | {"signature": "0x00"}),
        ("unknown_node", signed(opening(node_id=9))),
        ("unknown_node", signed(opening(node_id=(1 << 32) - 1))),
        ("invalid_request", signed(opening(open_before=NOW_AT))),
        ("invalid_request", signed(opening(expires_at=NOW_AT))),
        ("invalid_request", signed(opening(expires_at=NOW_AT + 86_401))),
        ("invalid_request", signed(opening(amount_atoms=0))),
        ("invalid_request", signed(opening(amount_atoms=1 << 63))),
        ("invalid_request", {"open": {"buyer": "me"}, "signature": "0x"}),
        ("invalid_request", {"signature": "0x"}),
    ],
)
async def test_bad_open_changes_nothing(tmp_path, code, body):
    async with gateway(tmp_path) as g:
        g.put_node(1)
        before = g.rows()
        answer = await g.http.post("/v1/sessions", json=body)
        assert (answer.json()["code"], answer.json()["charged"]) == (code, False)
        assert g.rows() == before


async def test_top_up_is_checked_and_goes_to_the_outbox(tmp_path):
    async with gateway(tmp_path) as g:
        terms = opening()
        session_id = to_hex(terms.digest(DOMAIN))
        wish = TopUp(session_id=terms.digest(DOMAIN), deposited_atoms=900)

        async def top_up(signer=BUYER, name=session_id, about=terms):
            body = {
                "top_up": wish.to_json(),
                "open": about.to_json(),
                "signature": to_hex(signer.sign(wish, DOMAIN)),
            }
            return await g.http.post(f"/v1/sessions/{name}/topup", json=body)

        assert (await top_up(STRANGER)).json()["code"] == "bad_signature"
        assert (await top_up(name="0x" + "00" * 32)).json()["code"] == "unknown_session"
        assert (await top_up(about=opening(amount_atoms=1))).json()["code"] == "invalid_request"
        answer = await top_up()
        assert answer.status_code == 202
        assert answer.json()["intent"] == f"topup:{session_id}:900"


async def test_account_shows_balance_and_sessions(tmp_path):
    async with gateway(tmp_path) as g:
        with g.store.transaction() as tx:
            tx.add(AccountRow(buyer=BUYER.address, balance_atoms=2_500_000))
        opened = g.put_session(KEY.address, 1, 700, owed_atoms=100, reserved_atoms=50)
        shown = (await g.http.get(f"/v1/accounts/{BUYER.address.lower()}")).json()
        assert (shown["balance_atoms"], shown["balance"], shown["currency"]) == ("2500000", "2.50", "TUSD")
        (session,) = shown["sessions"]
        assert (session["session_id"], session["left_atoms"], session["status"]) == (opened, "550", "open")
        nobody = (await g.http.get(f"/v1/accounts/{STRANGER.address}")).json()
        assert (nobody["balance_atoms"], nobody["sessions"]) == ("0", [])
