"""The checks of a receipt that only the chain can make: contracts, node key, session, payment."""

from __future__ import annotations

from collections.abc import Sequence

from marketplace.chain.codec import ChainEvent
from marketplace.client.bundle import Bundle, Settlement
from marketplace.client.verify import Check
from marketplace.client.views import ChainView
from marketplace.protocol.batches import SHORT_ID_BYTES
from marketplace.protocol.eip712 import Domain
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.signing import BadSignature, signer_of


def check_on_chain(bundle: Bundle, chain: ChainView, domain: Domain) -> list[Check]:
    """The four checks of `verify.CHAIN_CHECKS`. May raise `ChainTrouble`.

    `domain` is of the deployment the reader trusts: a bundle of other contracts proves nothing.
    """
    if bundle.domain != domain:
        return [
            Check("domain", False, f"signed for {bundle.domain.escrow} on chain {bundle.domain.chain_id}")
        ]
    return [
        Check("domain", True, f"{domain.escrow} on chain {domain.chain_id}"),
        _node(bundle, chain),
        _session(bundle, chain),
        _settlement(bundle, chain),
    ]


def _node(bundle: Bundle, chain: ChainView) -> Check:
    actual = chain.signer_at(bundle.node_id, bundle.epoch)
    if actual != bundle.signer:
        return Check("node", False, f"node {bundle.node_id} had key {actual} in epoch {bundle.epoch}")
    return Check("node", True, f"{actual} is node {bundle.node_id}'s key of epoch {bundle.epoch}")


def _session(bundle: Bundle, chain: ChainView) -> Check:
    try:
        key = signer_of(bundle.order, bundle.domain, bundle.order_signature)
    except BadSignature as error:
        return Check("session", False, str(error))
    session = chain.session(bundle.order.session_id, key)
    if session is None or not chain.opened(bundle.order.session_id):
        return Check("session", False, f"no session {to_hex(bundle.order.session_id)} of key {key}")
    if session.node_id != bundle.node_id:
        return Check("session", False, f"the session pays node {session.node_id}, not {bundle.node_id}")
    if session.key_epoch != bundle.epoch:
        return Check(
            "session", False, f"the session counts key epoch {session.key_epoch}, not {bundle.epoch}"
        )
    return Check("session", True, f"open for key {key} and node {session.node_id}")


def _settlement(bundle: Bundle, chain: ChainView) -> Check:
    if bundle.settlement is None:
        return Check("settlement", None, "not settled when this bundle was written")
    seen = chain.tx_receipt(bundle.settlement.tx_hash)
    if seen is None or not seen.ok or seen.block_number != bundle.settlement.block_number:
        return Check("settlement", False, "the chain does not have this transaction in this block")
    return _paid(bundle, bundle.settlement, chain)


def _paid(bundle: Bundle, settlement: Settlement, chain: ChainView) -> Check:
    # A batch names its sessions by their first bytes; that this is the only such session is checked apart.
    short_id = to_hex(bundle.order.session_id[:SHORT_ID_BYTES])
    ours = [
        event
        for event in chain.events(settlement.block_number, settlement.block_number)
        if event.tx_hash == settlement.tx_hash and str(event.args.get("sessionId", "")).startswith(short_id)
    ]
    if (voucher := _first(ours, "VoucherSettled")) is not None:
        ok = int(voucher.args["throughSeq"]) >= bundle.order.seq
        detail = f"paid in block {settlement.block_number}" if ok else "it pays only earlier jobs"
        return Check("settlement", ok, detail)
    if _first(ours, "ClaimFinalised") is None and not _is_resolved(ours, bundle):
        return Check("settlement", False, "the transaction does not pay this session")
    # A claim pays the receipts it lists, and no other below its last.
    if to_hex(bundle.receipt.digest(bundle.domain)) not in chain.claimed_receipts(bundle.order.session_id):
        return Check("settlement", False, "the claim that this transaction pays does not list the receipt")
    return Check("settlement", True, f"paid by claim in block {settlement.block_number}")


def _first(events: Sequence[ChainEvent], name: str) -> ChainEvent | None:
    return next((event for event in events if event.name == name), None)


def _is_resolved(events: Sequence[ChainEvent], bundle: Bundle) -> bool:
    """Whether the court paid an amount like this receipt's; the event does not name the receipt."""
    amount = bundle.receipt.amount_atoms
    return any(
        event.name == "ClaimResolved" and event.args["isPaid"] and event.args["amount"] == amount
        for event in events
    )
