"""What can be asked of the contracts, as ready calldata."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from eth_abi.abi import encode

from marketplace.chain import slots
from marketplace.chain.artifacts import contract
from marketplace.chain.codec import encode_call, values_of
from marketplace.chain.deployment import Deployment
from marketplace.protocol.batches import batch_of, pack
from marketplace.protocol.hexes import keccak, to_hex
from marketplace.protocol.messages import KeyGrant, Open, Order, Receipt, Settlement, Voucher
from marketplace.protocol.signing import compact, signer_of

# EIP-2930: naming an address costs 2,400; a slot costs 1,900 ahead and 100 when used, instead of 2,100.
_LIST_COSTS_GAS: Final = 2_400
_SLOT_SAVES_GAS: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call to send.

    Attributes:
        to: contract; None creates one from `data`.
        what: for people and logs, as in `settle 12 vouchers`.
        slots: storage of `to` that the call is known to touch.
    """

    to: str | None
    data: bytes = field(repr=False)
    what: str
    slots: tuple[bytes, ...] = field(default=(), repr=False)

    @property
    def access_list(self) -> list[dict[str, Any]]:
        """EIP-2930 list in JSON-RPC form; empty where it would cost more than it saves."""
        if len(self.slots) * _SLOT_SAVES_GAS <= _LIST_COSTS_GAS:
            return []
        return [{"address": self.to, "storageKeys": [to_hex(slot) for slot in self.slots]}]


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorization:
    """An EIP-3009 `receiveWithAuthorization` to the escrow; times are Unix seconds, exclusive."""

    buyer: str
    amount_atoms: int
    valid_after: int
    valid_before: int
    nonce: bytes
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedJob:
    """An order and its receipt, as both sides signed them."""

    order: Order
    order_signature: bytes
    receipt: Receipt
    receipt_signature: bytes

    @property
    def values(self) -> tuple[Any, ...]:
        """As Solidity's `SignedReceipt`."""
        return values_of(self.order), self.order_signature, values_of(self.receipt), self.receipt_signature


def faucet(deployment: Deployment, to: str, amount_atoms: int) -> Call:
    """Mints test dollars; local chains only, at most 1,000,000 of them a call."""
    return _token(deployment, "faucet", to, amount_atoms, what=f"mint {amount_atoms} atoms for {to}")


def approve(deployment: Deployment, spender: str, amount_atoms: int) -> Call:
    """Lets `spender` (escrow or registry) take up to this much of the sender's tokens."""
    return _token(deployment, "approve", spender, amount_atoms, what=f"approve {amount_atoms} atoms")


def deposit(deployment: Deployment, amount_atoms: int) -> Call:
    """Moves the sender's tokens into its account; needs an allowance for the escrow."""
    return _escrow(deployment, "deposit", amount_atoms, what=f"deposit {amount_atoms} atoms")


def withdraw(deployment: Deployment, amount_atoms: int, to: str) -> Call:
    """Sends money of the sender's account away."""
    return _escrow(deployment, "withdraw", amount_atoms, to, what=f"withdraw {amount_atoms} atoms to {to}")


def open_sessions(deployment: Deployment, opens: Sequence[tuple[Open, bytes]]) -> Call:
    """Opens sessions, all or none; a signature may be empty where the buyer or the key is the sender.

    A key whose grant lists nodes appends `nodelist.proof` to its signature.
    """
    named = slots.of_opening([terms for terms, _ in opens], deployment.domain)
    if len(opens) == 1:
        ((only, signature),) = opens
        return _escrow(
            deployment, "openOneSession", values_of(only), signature, what="open 1 session", slots=named
        )
    values = [values_of(terms) for terms, _ in opens], [signature for _, signature in opens]
    return _escrow(deployment, "open", *values, what=f"open {len(opens)} sessions", slots=named)


def top_up(deployment: Deployment, terms: Open, deposited_atoms: int, signature: bytes = b"") -> Call:
    """Raises a session's cumulative deposit; empty signature where the buyer is the sender."""
    what = f"top up to {deposited_atoms} atoms"
    return _escrow(deployment, "topUp", values_of(terms), deposited_atoms, signature, what=what)


def settle(deployment: Deployment, vouchers: Sequence[tuple[Voucher, bytes]]) -> Call:
    """Turns vouchers with their 65-byte signatures into earnings; sender is the settler."""
    items = [_settle_item(voucher, signature) for voucher, signature in vouchers]
    keys = [signer_of(voucher, deployment.domain, signature) for voucher, signature in vouchers]
    named = slots.of_sessions(zip(keys, (v.session_id for v, _ in vouchers), strict=True))
    return _escrow(deployment, "settle", items, what=f"settle {len(items)} vouchers", slots=named)


def settle_for(
    deployment: Deployment, vouchers: Sequence[tuple[Voucher, bytes]], settler_signature: bytes
) -> Call:
    """As `settle`, sent by anyone with the settler's signature of `settlement_of` the same vouchers."""
    items = [_settle_item(voucher, signature) for voucher, signature in vouchers]
    what = f"settle {len(items)} vouchers for their settler"
    return _escrow(deployment, "settleFor", items, settler_signature, what=what)


def settlement_of(vouchers: Sequence[tuple[Voucher, bytes]]) -> Settlement:
    """What a settler signs so that anybody may send these vouchers."""
    items = [_settle_item(voucher, signature) for voucher, signature in vouchers]
    kinds = contract("Escrow").functions["settle"].kinds
    return Settlement(items_hash=keccak(encode(kinds, [items])))


def settle_batch(
    deployment: Deployment,
    vouchers: Sequence[Voucher],
    key: str,
    signature: bytes,
    node_ids: Collection[int] = (),
) -> Call:
    """Settles vouchers of many sessions of `key` under its signature of `batch_of` them, in that order.

    `node_ids` are the sessions' nodes, where the sender knows them: it saves a little gas.
    """
    r, vs = compact(signature)
    named = (*slots.of_sessions((key, v.session_id) for v in vouchers), *slots.of_nodes(node_ids))
    values = pack(vouchers), batch_of(vouchers).receipts_root, r, vs
    return _escrow(deployment, "settleBatch", *values, what=f"settle {len(vouchers)} vouchers", slots=named)


def deposit_with_permit(deployment: Deployment, amount_atoms: int, deadline: int, signature: bytes) -> Call:
    """As `deposit`, with the sender's EIP-2612 permit in place of an allowance."""
    v, r, s = signature[64], signature[:32], signature[32:64]
    what = f"deposit {amount_atoms} atoms by permit"
    return _escrow(deployment, "depositWithPermit", amount_atoms, deadline, v, r, s, what=what)


def deposit_with_authorization(deployment: Deployment, authorization: Authorization) -> Call:
    """Credits whoever signed the EIP-3009 authorization; anyone may send it."""
    its = authorization
    times = its.valid_after, its.valid_before
    what = f"deposit {its.amount_atoms} atoms of {its.buyer} by authorization"
    values = its.buyer, its.amount_atoms, *times, its.nonce, its.signature
    return _escrow(deployment, "depositWithAuthorization", *values, what=what)


def set_key(deployment: Deployment, grant: KeyGrant) -> Call:
    """Grants a key by the buyer's own transaction; nonce and validity of the grant are not used."""
    caps = (
        grant.per_session_atoms,
        grant.per_day_atoms,
        grant.total_atoms,
        grant.expires_at,
        grant.nodes_root,
    )
    return _escrow(deployment, "setKey", grant.key, caps, what=f"grant key {grant.key}")


def set_key_by_signature(deployment: Deployment, grant: KeyGrant, signature: bytes) -> Call:
    """Grants a key by the buyer's signature; anyone may send it."""
    what = f"grant key {grant.key} of {grant.buyer}"
    return _escrow(deployment, "setKeyBySig", values_of(grant), signature, what=what)


def revoke_key(deployment: Deployment, key: str) -> Call:
    """Takes everything from a key of the sender, at once."""
    return _escrow(deployment, "revokeKey", key, what=f"revoke key {key}")


def claim(deployment: Deployment, terms: Open, jobs: Sequence[SignedJob]) -> Call:
    """Claims receipts that no voucher paid, in ascending order of seq; sender is the node's settler."""
    values = [job.values for job in jobs]
    return _escrow(deployment, "claim", values_of(terms), values, what=f"claim {len(jobs)} receipts")


def finalise(deployment: Deployment, terms: Open) -> Call:
    """Pays the undisputed part of a claim whose window is over."""
    return _escrow(deployment, "finalise", values_of(terms), what="finalise a claim")


def close(deployment: Deployment, terms: Open, min_paid_atoms: int, node_signature: bytes) -> Call:
    """Ends a session with its node's signed `Close`."""
    what = f"close after {min_paid_atoms} atoms"
    return _escrow(deployment, "close", values_of(terms), min_paid_atoms, node_signature, what=what)


def expire(deployment: Deployment, opens: Sequence[Open]) -> Call:
    """Returns the rest of sessions past their grace; reverts as a whole when one is too early."""
    return _escrow(
        deployment, "expire", [values_of(terms) for terms in opens], what=f"expire {len(opens)} sessions"
    )


def collect(deployment: Deployment, node_ids: Sequence[int]) -> Call:
    """Pays nodes' earnings, less the fee, to their owners."""
    return _escrow(deployment, "collect", list(node_ids), what=f"collect for {len(node_ids)} nodes")


def register(deployment: Deployment, uri: str) -> Call:
    """Makes the sender a provider; once."""
    return _registry(deployment, "register", uri, what="register as a provider")


def stake(deployment: Deployment, amount_atoms: int) -> Call:
    """Adds to the sender's stake; needs an allowance for the registry."""
    return _registry(deployment, "stake", amount_atoms, what=f"stake {amount_atoms} atoms")


def add_node(deployment: Deployment, signer: str, encryption_key: bytes, settler: str, uri: str) -> Call:
    """Adds a node of the sender; its id is in the event `NodeAdded`."""
    return _registry(deployment, "addNode", signer, encryption_key, settler, uri, what="add a node")


def rotate_node_key(deployment: Deployment, node_id: int, signer: str, encryption_key: bytes) -> Call:
    """Starts a new key epoch of a node."""
    what = f"rotate the key of node {node_id}"
    return _registry(deployment, "rotateNodeKey", node_id, signer, encryption_key, what=what)


def set_settler(deployment: Deployment, node_id: int, settler: str) -> Call:
    """Changes who may settle for a node."""
    return _registry(deployment, "setSettler", node_id, settler, what=f"set the settler of node {node_id}")


def request_unstake(deployment: Deployment, amount_atoms: int) -> Call:
    """Puts stake into the delay; a further request restarts the delay of the whole."""
    return _registry(deployment, "requestUnstake", amount_atoms, what=f"unstake {amount_atoms} atoms")


def withdraw_stake(deployment: Deployment) -> Call:
    """Takes out all stake whose delay is over."""
    return _registry(deployment, "withdrawStake", what="withdraw stake")


def _escrow(
    deployment: Deployment, function: str, *values: Any, what: str, slots: tuple[bytes, ...] = ()
) -> Call:
    return Call(to=deployment.escrow, data=encode_call("Escrow", function, *values), what=what, slots=slots)


def _registry(deployment: Deployment, function: str, *values: Any, what: str) -> Call:
    return Call(to=deployment.registry, data=encode_call("NodeRegistry", function, *values), what=what)


def _token(deployment: Deployment, function: str, *values: Any, what: str) -> Call:
    return Call(to=deployment.token, data=encode_call("TestDollar", function, *values), what=what)


def _settle_item(voucher: Voucher, signature: bytes) -> tuple[Any, ...]:
    return (
        voucher.session_id,
        voucher.through_seq,
        voucher.amount_atoms,
        voucher.receipts_root,
        *compact(signature),
    )
