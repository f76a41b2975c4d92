"""A thief with a leaked key, gas, and a staked node of its own, against the real contracts."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import pytest

from marketplace.chain import calls
from marketplace.chain.calls import Call
from marketplace.client.caps import DAY_SECONDS, Caps
from marketplace.client.keys import BuyerKeys
from marketplace.client.wallet import BuyerWallet
from marketplace.protocol.errors import WattError
from marketplace.protocol.hexes import keccak
from marketplace.protocol.messages import Close, KeyGrant, Open, TopUp, Voucher
from marketplace.protocol.signing import Signer
from tests.hardhat import Chain, key

pytestmark = pytest.mark.chain
BUYER, LEAKED, OWNER, SETTLER, FENCE = key(8), key(9), key(2), key(3), key(4)
NODE_KEY = Signer(keccak(b"the thief's node"))
ONE = 1_000_000
ACCOUNT, CAP, PER_SESSION = 20 * ONE, 5 * ONE, 2 * ONE


@dataclass
class Thief:
    """Tries everything a key, gas and a node are good for."""

    chain: Chain
    node_id: int
    opened: list[Open] = field(default_factory=list)
    refused: int = 0

    def does(self, call: Call, signer: Signer = LEAKED) -> bool:
        """Sends a transaction; whether the contracts let it."""
        try:
            self.chain.send(signer, call)
        except WattError:
            self.refused += 1
            return False
        return True

    def open(self, atoms: int, signer: Signer = LEAKED, **changes: object) -> bool:
        """A session with its own node, and the same again by somebody else."""
        terms = dataclasses.replace(self.chain.terms(BUYER, LEAKED, self.node_id, atoms), **changes)
        signed = [(terms, signer.sign(terms, self.domain))]
        if self.does(calls.open_sessions(self.chain.deployment, signed)):
            self.opened.append(terms)
            before = account(self.chain)
            self.does(calls.open_sessions(self.chain.deployment, signed), FENCE)
            assert account(self.chain) == before
            return True
        return False

    def raise_all(self, to_atoms: int) -> None:
        """Top-ups of every session, each sent twice."""
        for terms in self.opened:
            wish = TopUp(session_id=terms.digest(self.domain), deposited_atoms=to_atoms)
            call = calls.top_up(self.chain.deployment, terms, to_atoms, LEAKED.sign(wish, self.domain))
            self.does(call)
            self.does(call, FENCE)

    def cash_in(self) -> None:
        """Vouchers over each session's deposit and over ten times as much, collected; and all of it again."""
        here = self.chain.deployment
        for seq in (1, 2):
            for terms in self.opened:
                for atoms in (terms.amount_atoms * 10, self.deposited(terms)):
                    voucher = Voucher(
                        session_id=terms.digest(self.domain),
                        through_seq=seq,
                        amount_atoms=atoms,
                        receipts_root=keccak(b"nothing"),
                    )
                    signed = [(voucher, LEAKED.sign(voucher, self.domain))]
                    self.does(calls.settle(here, signed), SETTLER)
            self.does(calls.collect(here, [self.node_id]), OWNER)

    def close_all(self) -> None:
        """Gives back what it could not take, hoping the caps forget."""
        for terms in self.opened:
            paid = self.chain.client.session(terms.digest(self.domain), LEAKED.address)
            least = paid.paid_atoms if paid else 0
            agreed = NODE_KEY.sign(
                Close(session_id=terms.digest(self.domain), min_paid_atoms=least), self.domain
            )
            self.does(calls.close(self.chain.deployment, terms, least, agreed), SETTLER)

    def grants_itself_more(self) -> bool:
        """A grant without limits, in the buyer's name."""
        grant = KeyGrant(
            buyer=BUYER.address,
            key=LEAKED.address,
            per_session_atoms=ACCOUNT,
            per_day_atoms=ACCOUNT,
            total_atoms=ACCOUNT,
            expires_at=self.chain.now() + DAY_SECONDS,
            nodes_root=bytes(32),
            nonce=(1 << 32) - 1,
            valid_until=self.chain.now() + DAY_SECONDS,
        )
        call = calls.set_key_by_signature(self.chain.deployment, grant, LEAKED.sign(grant, self.domain))
        return self.does(call) or (self.does(calls.set_key(self.chain.deployment, grant)) and self.open(CAP))

    def everything(self) -> None:
        """One round of it."""
        for atoms in (CAP, PER_SESSION, PER_SESSION, PER_SESSION, ONE // 2, 3 * ONE // 4, ONE // 2, 1):
            self.open(atoms)
        assert not self.open(1, key=FENCE.address)
        assert not self.open(1, FENCE)
        assert not self.grants_itself_more()
        assert not self.does(calls.withdraw(self.chain.deployment, 1, LEAKED.address))
        self.raise_all(PER_SESSION)
        self.raise_all(CAP)
        self.cash_in()
        self.close_all()
        assert not self.open(1)

    def deposited(self, terms: Open) -> int:
        found = self.chain.client.session(terms.digest(self.domain), LEAKED.address)
        return found.deposited_atoms if found else 0

    @property
    def domain(self):
        return self.chain.deployment.domain

    def loot(self) -> int:
        """What its owner holds, and what its node could still collect."""
        node = self.chain.client.node(self.node_id)
        return self.chain.client.token_balance_atoms(OWNER.address) + (node.earnings_atoms if node else 0)


@pytest.fixture
def buyer(chain: Chain) -> BuyerKeys:
    chain.fund(BUYER, ACCOUNT)
    keys = BuyerKeys(BuyerWallet(BUYER, chain.client, chain.now_ms))
    caps = Caps(
        per_session_atoms=PER_SESSION,
        per_day_atoms=CAP,
        total_atoms=CAP,
        expires_at=chain.now() + 7 * DAY_SECONDS,
    )
    keys.grant(LEAKED.address, caps)
    return keys


@pytest.fixture
def thief(chain: Chain, buyer: BuyerKeys) -> Thief:
    return Thief(chain, chain.add_node(OWNER, NODE_KEY, SETTLER))


def account(chain: Chain) -> int:
    return chain.client.account_atoms(BUYER.address)


def test_leaked_key_with_a_cap_of_5_takes_at_most_5_whatever_it_tries(chain: Chain, thief: Thief) -> None:
    before = thief.loot()
    thief.everything()
    chain.node.increase_time(2 * DAY_SECONDS)
    thief.everything()
    assert thief.refused > 20
    assert thief.loot() - before == CAP
    assert account(chain) == ACCOUNT - CAP


def test_revoked_key_takes_no_more_than_its_open_sessions_hold(
    chain: Chain, buyer: BuyerKeys, thief: Thief
) -> None:
    before = thief.loot()
    assert thief.open(PER_SESSION)
    assert thief.open(ONE)
    buyer.revoke(LEAKED.address)
    left = account(chain)
    assert left == ACCOUNT - PER_SESSION - ONE
    thief.everything()
    chain.node.increase_time(2 * DAY_SECONDS)
    thief.everything()
    assert thief.loot() - before <= PER_SESSION + ONE
    assert account(chain) >= left
