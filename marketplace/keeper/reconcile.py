"""Compares what the store says with what the contracts say, to the atom, and puts it right."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from marketplace.chain.client import ChainClient, ClaimState, SessionState
from marketplace.keeper.follow import OnSettled
from marketplace.protocol.hexes import ZERO32, ZERO_ADDRESS, from_hex, to_hex
from marketplace.registry import step
from marketplace.registry.rules import Touched
from marketplace.store import events as chain_log
from marketplace.store import projection
from marketplace.store.engine import Store
from marketplace.store.events import BlockFact
from marketplace.store.projection import MAX_ATOMS, Columns
from marketplace.telemetry.logs import get_logger
from marketplace.telemetry.metrics import Metrics
from marketplace.telemetry.names import Log

_SLICE: Final = 100
_NO_SESSION: Final[Columns] = {
    "deposited_atoms": 0,
    "paid_atoms": 0,
    "claimed_atoms": 0,
    "through_seq": 0,
    "closed": False,
}
_NO_NODE: Final[Columns] = {
    "owner": ZERO_ADDRESS,
    "epoch": 0,
    "signer": ZERO_ADDRESS,
    "encryption_key": to_hex(ZERO32),
    "settler": ZERO_ADDRESS,
    "stake_atoms": 0,
    "earnings_atoms": 0,
}

log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One value that the store and the contracts do not agree on.

    Attributes:
        kind: `account`, `session`, `node`, or `escrow` for the sum of all money.
        subject: buyer, session id, node id, or the escrow's address.
        healed: whether the store is right after deriving it anew.
    """

    kind: str
    subject: str
    field: str
    stored: object
    on_chain: object
    block_number: int
    healed: bool = False

    @property
    def atoms(self) -> int:
        """How far amounts are apart; 0 for what is no amount."""
        if not self.field.endswith("_atoms"):
            return 0
        return abs(int(str(self.stored)) - int(str(self.on_chain)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciled:
    """One turn. `block_number` is None when the follower was not at the chain's head: nothing was said."""

    block_number: int | None
    checked: int = 0
    differences: list[Difference] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mirror:
    newest: BlockFact
    accounts: dict[str, int]
    sessions: dict[str, Columns]
    nodes: dict[int, Columns]
    owed_atoms: int


class Reconciler:
    """Looks at a slice of every kind each turn, and at the sum of all money; goes round and round.

    Args:
        read_anew: reads all events again, for when those that are stored do not give what the chain has.
    """

    def __init__(
        self,
        chain: ChainClient,
        store: Store,
        read_anew: Callable[[], None],
        on_settled: OnSettled,
        *,
        metrics: Metrics | None = None,
        slice_rows: int = _SLICE,
    ) -> None:
        self._chain = chain
        self._store = store
        self._read_anew = read_anew
        self._on_settled = on_settled
        self._metrics = metrics
        self._slice_rows = slice_rows
        self._lock = threading.Lock()
        self._after = ("", "", 0)

    def step(self) -> Reconciled:
        """Compares the next slice; derives anew what differs, first from stored events, then from the chain.

        Raises:
            ChainTrouble: the chain does not answer.
        """
        with self._lock:
            self._tell_untold()
            mirror = self._slice()
            found = self._compare(mirror) if mirror is not None else None
            if mirror is None or found is None:
                return Reconciled(block_number=None)
            for difference in found:
                log.error(Log.CHAIN_TROUBLE, **_named(difference))
            differences = self._heal(mirror, found) if found else []
            if self._metrics is not None:
                left = sum(d.atoms for d in differences if not d.healed)
                self._metrics.set("reconcile_difference_atoms", left)
            self._advance(mirror)
            checked = len(mirror.accounts) + len(mirror.sessions) + len(mirror.nodes) + 1
            return Reconciled(block_number=mirror.newest.number, checked=checked, differences=differences)

    def _tell_untold(self) -> None:
        with self._store.reading() as db:
            if not step.untold(db):
                return
        with self._store.transaction() as db:
            for standing in step.untold(db):
                self._on_settled(db, standing.session_id, standing.after_seq)

    def _slice(self) -> _Mirror | None:
        buyer, session_id, node_id = self._after
        with self._store.reading() as db:
            newest = chain_log.cursor(db)
            if newest is None:
                return None
            return _Mirror(
                newest=newest,
                accounts=projection.accounts_from(db, buyer, self._slice_rows),
                sessions=projection.sessions_from(db, session_id, self._slice_rows),
                nodes=projection.nodes_from(db, node_id, self._slice_rows),
                owed_atoms=projection.owed_atoms(db),
            )

    def _again(self, mirror: _Mirror) -> _Mirror | None:
        with self._store.reading() as db:
            newest = chain_log.cursor(db)
            if newest is None:
                return None
            return _Mirror(
                newest=newest,
                accounts=projection.accounts(db, mirror.accounts),
                sessions=projection.sessions(db, mirror.sessions),
                nodes=projection.nodes(db, mirror.nodes),
                owed_atoms=projection.owed_atoms(db),
            )

    def _compare(self, mirror: _Mirror) -> list[Difference] | None:
        # Views answer for the newest block, so the answer counts only if that was ours all the while.
        if not self._is_at_head(mirror.newest):
            return None
        found = [
            *self._accounts(mirror),
            *self._sessions(mirror),
            *self._nodes(mirror),
            *self._escrow(mirror),
        ]
        return found if self._is_at_head(mirror.newest) else None

    def _is_at_head(self, newest: BlockFact) -> bool:
        head = self._chain.head()
        return (head.number, to_hex(head.hash)) == (newest.number, newest.hash)

    def _accounts(self, mirror: _Mirror) -> Iterable[Difference]:
        for buyer, atoms in mirror.accounts.items():
            on_chain = {"balance_atoms": self._chain.account_atoms(buyer)}
            yield from _differ("account", buyer, {"balance_atoms": atoms}, on_chain, mirror)

    def _sessions(self, mirror: _Mirror) -> Iterable[Difference]:
        for session_id, stored in mirror.sessions.items():
            state = self._chain.session(from_hex(session_id, 32), stored["key"])
            claim = self._chain.claim(from_hex(session_id, 32)) if state and state.claimed else None
            yield from _differ("session", session_id, stored, _session_columns(state, claim), mirror)

    def _nodes(self, mirror: _Mirror) -> Iterable[Difference]:
        for node_id, stored in mirror.nodes.items():
            yield from _differ("node", str(node_id), stored, self._node_columns(node_id), mirror)

    def _node_columns(self, node_id: int) -> Columns:
        state = self._chain.node(node_id)
        if state is None:
            return _NO_NODE
        return {
            "owner": state.owner,
            "epoch": state.epoch,
            "signer": state.signer,
            "encryption_key": to_hex(state.encryption_key),
            "settler": state.settler,
            "stake_atoms": self._chain.provider(state.owner).staked_atoms,
            "earnings_atoms": state.earnings_atoms,
        }

    def _escrow(self, mirror: _Mirror) -> Iterable[Difference]:
        escrow = self._chain.deployment.escrow
        owed_atoms = mirror.owed_atoms + self._chain.fees_atoms()
        held_atoms = self._chain.token_balance_atoms(escrow)
        # More than is owed is no fault: anybody may send tokens there.
        if held_atoms < owed_atoms:
            yield Difference(
                kind="escrow",
                subject=escrow,
                field="held_atoms",
                stored=owed_atoms,
                on_chain=held_atoms,
                block_number=mirror.newest.number,
            )

    def _heal(self, mirror: _Mirror, found: list[Difference]) -> list[Difference]:
        with self._store.transaction() as db:
            step.refold(db, _touched(found))
        left = self._left(mirror)
        if left is None or left:
            self._read_anew()
            left = self._left(mirror)
        if left is None:
            return found
        wrong = {(d.kind, d.subject, d.field) for d in left}
        return [replace(d, healed=(d.kind, d.subject, d.field) not in wrong) for d in found]

    def _left(self, mirror: _Mirror) -> list[Difference] | None:
        fresh = self._again(mirror)
        return self._compare(fresh) if fresh is not None else None

    def _advance(self, mirror: _Mirror) -> None:
        def last(keys: Iterable[Any], start: Any) -> Any:
            seen = list(keys)
            return max(seen) if len(seen) == self._slice_rows else start

        self._after = (last(mirror.accounts, ""), last(mirror.sessions, ""), last(mirror.nodes, 0))


def _differ(
    kind: str, subject: str, stored: Columns, on_chain: Columns, mirror: _Mirror
) -> Iterable[Difference]:
    for name, value in on_chain.items():
        expected = min(value, MAX_ATOMS) if name.endswith("_atoms") else value
        if stored[name] != expected:
            yield Difference(
                kind=kind,
                subject=subject,
                field=name,
                stored=stored[name],
                on_chain=value,
                block_number=mirror.newest.number,
            )


def _session_columns(state: SessionState | None, claim: ClaimState | None) -> Columns:
    if state is None:
        return _NO_SESSION
    return {
        "deposited_atoms": state.deposited_atoms,
        "paid_atoms": state.paid_atoms,
        "claimed_atoms": claim.pending_atoms + claim.held_atoms if claim else 0,
        "through_seq": state.through_seq,
        "closed": state.closed,
    }


def _touched(found: Iterable[Difference]) -> Touched:
    by_kind: dict[str, set[str]] = {"account": set(), "session": set(), "node": set(), "escrow": set()}
    for difference in found:
        by_kind[difference.kind].add(difference.subject)
    return Touched(
        buyers=frozenset(by_kind["account"]),
        sessions=frozenset(by_kind["session"]),
        nodes=frozenset(int(node_id) for node_id in by_kind["node"]),
    )


def _named(difference: Difference) -> dict[str, object]:
    return {
        "kind": difference.kind,
        "subject": difference.subject,
        "field": difference.field,
        "stored": difference.stored,
        "on_chain": difference.on_chain,
        "block": difference.block_number,
    }
