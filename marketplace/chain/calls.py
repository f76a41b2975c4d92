"""What can be asked of the contracts, as ready calldata."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from marketplace.chain.codec import encode_call
from marketplace.chain.deployment import Deployment
from marketplace.protocol.hexes import checksum
from marketplace.protocol.messages import Open, Voucher
from marketplace.protocol.signing import compact


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call to send.

    Attributes:
        to: contract; None creates one from `data`.
        what: for people and logs, as in `settle 12 vouchers`.
    """

    to: str | None
    data: bytes = field(repr=False)
    what: str


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
    """Opens sessions, all or none; a signature may be empty where the buyer is the sender."""
    terms = [_terms(terms) for terms, _ in opens]
    signatures = [signature for _, signature in opens]
    return _escrow(deployment, "open", terms, signatures, what=f"open {len(opens)} sessions")


def top_up(deployment: Deployment, terms: Open, deposited_atoms: int, signature: bytes = b"") -> Call:
    """Raises a session's cumulative deposit; empty signature where the buyer is the sender."""
    what = f"top up to {deposited_atoms} atoms"
    return _escrow(deployment, "topUp", _terms(terms), deposited_atoms, signature, what=what)


def settle(deployment: Deployment, vouchers: Sequence[tuple[Voucher, bytes]]) -> Call:
    """Turns vouchers with their 65-byte signatures into earnings; sender is the settler."""
    items = [_settle_item(voucher, signature) for voucher, signature in vouchers]
    return _escrow(deployment, "settle", items, what=f"settle {len(items)} vouchers")


def close(deployment: Deployment, terms: Open, min_paid_atoms: int, node_signature: bytes) -> Call:
    """Ends a session with its node's signed `Close`."""
    what = f"close after {min_paid_atoms} atoms"
    return _escrow(deployment, "close", _terms(terms), min_paid_atoms, node_signature, what=what)


def expire(deployment: Deployment, opens: Sequence[Open]) -> Call:
    """Returns the rest of sessions past their grace; reverts as a whole when one is too early."""
    return _escrow(
        deployment, "expire", [_terms(terms) for terms in opens], what=f"expire {len(opens)} sessions"
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


def _escrow(deployment: Deployment, function: str, *values: Any, what: str) -> Call:
    return Call(to=deployment.escrow, data=encode_call("Escrow", function, *values), what=what)


def _registry(deployment: Deployment, function: str, *values: Any, what: str) -> Call:
    return Call(to=deployment.registry, data=encode_call("NodeRegistry", function, *values), what=what)


def _token(deployment: Deployment, function: str, *values: Any, what: str) -> Call:
    return Call(to=deployment.token, data=encode_call("TestDollar", function, *values), what=what)


def _terms(terms: Open) -> tuple[Any, ...]:
    return (
        checksum(terms.buyer),
        checksum(terms.key),
        terms.node_id,
        terms.amount_atoms,
        terms.open_before,
        terms.expires_at,
        terms.salt,
    )


def _settle_item(voucher: Voucher, signature: bytes) -> tuple[Any, ...]:
    return (
        voucher.session_id,
        voucher.through_seq,
        voucher.amount_atoms,
        voucher.receipts_root,
        *compact(signature),
    )
