"""Load keys and sessions → choose who pays → reserve; and opens into the outbox."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from marketplace.chain import calls
from marketplace.chain.deployment import Deployment
from marketplace.funding import budgets, rules
from marketplace.funding.vault import Vault
from marketplace.protocol import ids
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.hexes import from_hex, to_hex
from marketplace.protocol.messages import Open, TopUp
from marketplace.protocol.signing import Signer
from marketplace.store import keys, offers, outbox, sessions
from marketplace.store.outbox import OutboxEntry, Wanted
from marketplace.store.tables import KeyRow, SessionRow, SessionTermsRow, Tx


def create_key(
    tx: Tx, vault: Vault, secret: str, label: str, now_ms: int, terms: budgets.Terms | None = None
) -> Signer:
    """A delegate key behind a fresh bearer secret. Raises `BadRequest` when its terms make no sense."""
    terms = terms or budgets.Terms()
    budgets.check_terms(terms, now_ms // 1000)
    signer, sealed = vault.create()
    row = KeyRow(
        address=signer.address,
        secret_hash=to_hex(ids.api_key_hash(secret)),
        sealed_key=sealed,
        label=label,
        created_at_ms=now_ms,
        models="\n".join(terms.models),
        budget_atoms=terms.budget_atoms,
        expires_at=terms.expires_at,
    )
    keys.add(tx, row)
    return signer


def open_key(tx: Tx, vault: Vault, secret: str, now_ms: int) -> Signer:
    """The delegate key of a bearer secret. Raises `BadRequest`."""
    row = keys.find_by_secret(tx, to_hex(ids.api_key_hash(secret)))
    if row is None:
        raise BadRequest(ErrorCode.UNKNOWN_KEY)
    budgets.check_live(row, now_ms)
    return vault.open(row.address, row.sealed_key)


def held_key(tx: Tx, vault: Vault, address: str) -> Signer | None:
    """The delegate key with this address, when it is held here."""
    row = keys.find(tx, address)
    return vault.open(row.address, row.sealed_key) if row else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Funded:
    """A price some session pays: its place in the list, and the seq taken."""

    place: int
    session_id: str
    seq: int


def purses(tx: Tx, key: str, node_ids: Sequence[int]) -> list[rules.Purse]:
    """What a key's open sessions with these nodes may still spend, soonest to expire first."""
    return [_purse(row) for row in sessions.spendable(tx, key, node_ids)]


def reserve(tx: Tx, key: str, prices: Sequence[rules.Price], deadline_ms: int) -> Funded:
    """Sets the ceiling of the first payable price aside and takes a seq.

    Raises:
        BadRequest: no session of this key pays any of them, or its budget covers none.
        LostRace: another order took the money first (PostgreSQL only); ask again.
    """
    places = budgets.affordable(tx, key, prices)
    rows = sessions.spendable(tx, key, [price.node_id for price in prices])
    at, purse = rules.choose([prices[i] for i in places], [_purse(row) for row in rows], deadline_ms)
    budgets.check_granted(tx, next(r.buyer for r in rows if r.session_id == purse.session_id), key)
    seq = sessions.reserve(tx, purse.session_id, prices[places[at]].ceiling_atoms)
    return Funded(place=places[at], session_id=purse.session_id, seq=seq)


def ask_open(
    tx: Tx, deployment: Deployment, terms: Open, signature: bytes, now_ms: int
) -> tuple[str, OutboxEntry]:
    """Puts an `Open` into the outbox; gives the session id and where it stands. Idempotent.

    Raises:
        BadRequest: the escrow could not accept it.
    """
    rules.check_open(terms, signature, deployment.domain, now_ms // 1000, deployment.max_session_seconds)
    node = offers.node(tx, terms.node_id)
    if node is None or node.epoch == 0:
        raise BadRequest(ErrorCode.UNKNOWN_NODE, f"node {terms.node_id} is not registered")
    session_id = to_hex(terms.digest(deployment.domain))
    call = calls.open_sessions(deployment, [(terms, signature)])
    kept = SessionTermsRow(
        session_id=session_id,
        buyer=terms.buyer,
        key=terms.key,
        message=terms.encode(),
        signature=signature,
        expires_at=terms.expires_at,
        asked_at_ms=now_ms,
    )
    sessions.keep_terms(tx, kept)
    entry = outbox.ask(tx, _wanted(f"open:{session_id}", call), now_ms=now_ms)
    return session_id, entry


def ask_top_up(
    tx: Tx, deployment: Deployment, wish: TopUp, terms: Open, signature: bytes, now_ms: int
) -> OutboxEntry:
    """Puts a `TopUp` into the outbox. Idempotent. Raises `BadRequest`."""
    rules.check_top_up(wish, terms, signature, deployment.domain)
    call = calls.top_up(deployment, terms, wish.deposited_atoms, signature)
    intent = f"topup:{to_hex(wish.session_id)}:{wish.deposited_atoms}"
    return outbox.ask(tx, _wanted(intent, call), now_ms=now_ms)


def return_expired(tx: Tx, deployment: Deployment, now_ms: int, limit: int = 50) -> int:
    """Asks the escrow to return the rest of sessions past their grace; gives how many. Idempotent."""
    past_at = now_ms // 1000 - deployment.grace_seconds
    fresh = 0
    for row in sessions.returnable(tx, past_at, limit):
        intent = f"expire:{row.session_id}"
        if outbox.find(tx, intent) is None:
            call = calls.expire(deployment, [Open.decode(row.message)])
            outbox.ask(tx, _wanted(intent, call), now_ms=now_ms)
            fresh += 1
    return fresh


def session_bytes(session_id: str) -> bytes:
    """32 bytes of a session id as callers write it. Raises `BadRequest`."""
    try:
        return from_hex(session_id, 32)
    except ValueError as error:
        raise BadRequest(ErrorCode.UNKNOWN_SESSION, f"a session id is 32 bytes of hex: {error}") from error


def _purse(row: SessionRow) -> rules.Purse:
    return rules.Purse(
        session_id=row.session_id,
        node_id=row.node_id,
        key_epoch=row.key_epoch,
        left_atoms=sessions.left_atoms(row),
        expires_at=row.expires_at,
    )


def _wanted(intent: str, call: calls.Call) -> Wanted:
    return Wanted(intent=intent, contract=call.to or "", data=call.data, what=call.what)
