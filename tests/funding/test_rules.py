from __future__ import annotations

import pytest

from marketplace.funding.rules import EXPIRY_MARGIN_MS, MOST_PROOF_BYTES, Price, Purse, check_payer, choose
from marketplace.protocol import nodelist
from marketplace.protocol.eip712 import Domain
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.messages import Open, TopUp
from marketplace.protocol.signing import Signer

DEADLINE_MS = 10_000
BUYER, KEY, STRANGER = (Signer(bytes([number]) * 32) for number in (1, 2, 3))
DOMAIN = Domain(31337, "0x5FbDB2315678afecb367f032d93F642f64180aa3")
TERMS = Open(
    buyer=BUYER.address,
    key=KEY.address,
    node_id=1,
    amount_atoms=1,
    open_before=1,
    expires_at=2,
    salt=bytes(32),
)
TOP_UP = TopUp(session_id=TERMS.digest(DOMAIN), deposited_atoms=5)
PROOF = nodelist.proof((1, 2, 3), 1)


def price(node_id, ceiling=10, epoch=1):
    return Price(node_id=node_id, epoch=epoch, ceiling_atoms=ceiling)


def purse(node_id, left=10, *, epoch=1, expires_at=100, name="s"):
    return Purse(session_id=name, node_id=node_id, key_epoch=epoch, left_atoms=left, expires_at=expires_at)


def test_first_payable_price_wins_and_the_first_session_that_covers_it():
    purses = [purse(2, 9, name="small"), purse(2, 10, name="fits"), purse(3, 99, name="other")]
    assert choose([price(1), price(2), price(3)], purses, DEADLINE_MS) == (1, purses[1])


def test_session_must_outlast_the_deadline():
    last = (DEADLINE_MS + EXPIRY_MARGIN_MS) // 1000
    choose([price(1)], [purse(1, expires_at=last + 1)], DEADLINE_MS)
    with pytest.raises(BadRequest) as seen:
        choose([price(1)], [purse(1, expires_at=last)], DEADLINE_MS)
    assert seen.value.code is ErrorCode.SESSION_EXPIRED


def test_session_of_a_former_key_epoch_does_not_count():
    with pytest.raises(BadRequest) as seen:
        choose([price(1, epoch=2)], [purse(1)], DEADLINE_MS)
    assert seen.value.code is ErrorCode.NO_SESSION


def test_underfunded_names_the_session_to_top_up():
    with pytest.raises(
        BadRequest, match="7 atoms are left, this job may cost 10: top up session big"
    ) as seen:
        choose([price(1)], [purse(1, 3, name="less"), purse(1, 7, name="big")], DEADLINE_MS)
    assert seen.value.code is ErrorCode.SESSION_UNDERFUNDED


@pytest.mark.parametrize("message", [TERMS, TOP_UP], ids=["open", "top-up"])
def test_buyer_or_key_may_sign_and_a_key_may_prove_its_list(message):
    check_payer(message, BUYER.sign(message, DOMAIN), DOMAIN, TERMS)
    check_payer(message, KEY.sign(message, DOMAIN), DOMAIN, TERMS)
    check_payer(message, KEY.sign(message, DOMAIN) + PROOF, DOMAIN, TERMS)


@pytest.mark.parametrize(
    "signature",
    [
        STRANGER.sign(TERMS, DOMAIN),
        STRANGER.sign(TERMS, DOMAIN) + PROOF,
        BUYER.sign(TERMS, DOMAIN) + PROOF,
        KEY.sign(TERMS, DOMAIN) + PROOF[:-1],
        KEY.sign(TERMS, DOMAIN) + bytes(MOST_PROOF_BYTES + 32),
        KEY.sign(TOP_UP, DOMAIN),
        b"",
    ],
)
def test_nobody_else_and_nothing_else_opens_a_session(signature):
    with pytest.raises(BadRequest) as seen:
        check_payer(TERMS, signature, DOMAIN, TERMS)
    assert seen.value.code is ErrorCode.BAD_SIGNATURE
