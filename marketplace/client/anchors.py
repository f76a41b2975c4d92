"""The checks of a receipt that only the chain can make: contracts, node key, session, payment."""

from __future__ import annotations

from marketplace.client.bundle import Bundle, Settlement
from marketplace.client.verify import Check
from marketplace.client.views import ChainView
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
    if session is None:
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
    session_id = to_hex(bundle.order.session_id)
    for event in chain.events(settlement.block_number, settlement.block_number):
        ours = event.name == "VoucherSettled" and event.tx_hash == settlement.tx_hash
        if ours and event.args["sessionId"] == session_id:
            ok = int(event.args["throughSeq"]) >= bundle.order.seq
            detail = f"paid in block {settlement.block_number}" if ok else "it pays only earlier jobs"
            return Check("settlement", ok, detail)
    return Check("settlement", False, "the transaction does not pay this session")
