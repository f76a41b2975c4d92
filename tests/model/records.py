"""What the model keeps, and how one call of it succeeds or is refused as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

from tests.model.messages import NOBODY, recover

U128: Final = (1 << 128) - 1
U64: Final = (1 << 64) - 1
U32: Final = (1 << 32) - 1
INFINITE: Final = (1 << 256) - 1
PANIC_ARITHMETIC: Final = 0x11
DIRTY: Final = "dirty"


class Refused(Exception):
    """The call changes nothing; `error` is a custom error, "" no word at all, `DIRTY` any refusal."""

    def __init__(self, error: str, *values: int | bytes) -> None:
        super().__init__(error, *values)
        self.error = error
        self.values = values


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a market is deployed with."""

    max_session_seconds: int = 72 * 3600
    grace_seconds: int = 900
    challenge_seconds: int = 6 * 3600
    min_stake: int = 1_000_000_000
    unstake_delay_seconds: int = 14 * 86_400
    dispute_seconds: int = 36 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Addresses that the contracts know."""

    escrow: int
    registry: int
    token: int
    court: int
    treasury: int
    vault: int  # a buyer that is a contract, and accepts every signature
    escrow_domain: bytes
    token_domain: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    deposited: int = 0
    paid: int = 0
    through_seq: int = 0
    node_id: int = 0
    exists: bool = False
    closed: bool = False
    claimed: bool = False
    epoch: int = 0
    expires_at: int = 0

    def words(self) -> list[int]:
        flags = self.exists + 2 * self.closed + 4 * self.claimed
        return [
            *(self.deposited, self.paid, self.through_seq),
            *(self.node_id, flags, self.epoch, self.expires_at),
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    pending: int = 0
    held: int = 0
    through_seq: int = 0
    replaced: int = 0
    final_at: int = 0
    receipts_hash: bytes = bytes(32)

    def words(self) -> list[int]:
        receipts = int.from_bytes(self.receipts_hash, "big")
        return [self.pending, self.held, self.through_seq, self.replaced, self.final_at, receipts]


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    per_session: int = 0
    per_day: int = 0
    total: int = 0
    expires_at: int = 0
    spent_today: int = 0
    spent: int = 0
    day: int = 0
    nonce: int = 0
    nodes_root: bytes = bytes(32)

    @property
    def is_listed(self) -> bool:
        return any(self.nodes_root)

    def words(self) -> list[int]:
        caps = [self.per_session, self.per_day, self.total, self.expires_at, int(self.is_listed)]
        use = [self.spent_today, self.spent, self.day, self.nonce]
        return [*caps, *use, int.from_bytes(self.nodes_root, "big")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    staked: int = 0
    unstaking: int = 0
    locked: int = 0
    unstake_at: int = 0
    registered: bool = False

    @property
    def free(self) -> int:
        """Stake behind no claim; a slash may leave less than is locked."""
        return max(self.staked - self.locked, 0)

    def words(self) -> list[int]:
        return [self.staked, self.unstaking, self.locked, self.unstake_at, int(self.registered)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    owner: int
    settler: int = 0
    earnings: int = 0
    epoch: int = 1
    serves: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Fee:
    bps: int = 0
    announced_bps: int = 0
    effective_at: int = 0
    uncollected: int = 0


@dataclass(slots=True)
class Tables:
    """All state. Records are replaced, never changed, so that a shallow copy is a snapshot."""

    tokens: dict[int, int] = field(default_factory=dict)
    allowances: dict[tuple[int, int], int] = field(default_factory=dict)
    permits: dict[int, int] = field(default_factory=dict)
    authorizations: dict[tuple[int, bytes], bool] = field(default_factory=dict)
    accounts: dict[int, int] = field(default_factory=dict)
    keys: dict[tuple[int, int], Key] = field(default_factory=dict)
    sessions: dict[tuple[int, bytes], Session] = field(default_factory=dict)
    claims: dict[bytes, Claim] = field(default_factory=dict)
    nodes: dict[int, Node] = field(default_factory=dict)
    signers: dict[tuple[int, int], int] = field(default_factory=dict)
    providers: dict[int, Provider] = field(default_factory=dict)
    totals: dict[str, int] = field(default_factory=lambda: {"slashed": 0})
    fee: dict[str, Fee] = field(default_factory=lambda: {"fee": Fee()})

    def copy(self) -> Tables:
        return Tables(*(dict(getattr(self, name)) for name in self.__slots__))


Event = tuple[str, str, tuple[Any, ...]]
Recover = Callable[[bytes, bytes], int]


class Ledger:
    """State, clock and events that every part of the model stands on."""

    def __init__(self, rules: Rules, places: Places) -> None:
        self.rules = rules
        self.places = places
        self.now = 0
        self.tables = Tables()
        self.events: list[Event] = []
        self.caller = NOBODY

    @contextmanager
    def call(self, caller: int) -> Iterator[None]:
        """One call: all of it or, when it is refused, nothing."""
        before = self.tables.copy()
        self.events = []
        self.caller = caller
        try:
            yield
        except Refused:
            self.tables, self.events = before, []
            raise

    def emit(self, contract: str, name: str, *values: Any) -> None:
        self.events.append((contract, name, values))

    def signer(self, over: bytes, signature: bytes) -> int:
        return recover(over, signature)

    # ------------------------------------------------------------------------------------------------ token

    def transfer(self, sender: int, receiver: int, amount: int) -> None:
        held = self.tables.tokens.get(sender, 0)
        if amount > held:
            raise Refused("ERC20InsufficientBalance", sender, held, amount)
        self.tables.tokens[sender] = held - amount
        self.tables.tokens[receiver] = self.tables.tokens.get(receiver, 0) + amount
        self.emit("token", "Transfer", sender, receiver, amount)

    def take(self, payer: int, taker: int, amount: int) -> None:
        """A transfer that the payer allowed before."""
        allowed = self.tables.allowances.get((payer, taker), 0)
        if allowed != INFINITE:
            if amount > allowed:
                raise Refused("ERC20InsufficientAllowance", taker, allowed, amount)
            self.tables.allowances[payer, taker] = allowed - amount
        self.transfer(payer, taker, amount)

    def faucet(self, to: int, amount: int) -> None:
        self.tables.tokens[to] = self.tables.tokens.get(to, 0) + amount
        self.emit("token", "Transfer", NOBODY, to, amount)

    def approve(self, taker: int, amount: int) -> None:
        self.tables.allowances[self.caller, taker] = amount
        self.emit("token", "Approval", self.caller, taker, amount)

    # -------------------------------------------------------------------------------------------- providers

    def provider(self, owner: int) -> Provider:
        return self.tables.providers.get(owner, Provider())

    def change_provider(self, owner: int, **changes: Any) -> None:
        self.tables.providers[owner] = replace(self.provider(owner), **changes)

    def change_node(self, node_id: int, **changes: Any) -> None:
        self.tables.nodes[node_id] = replace(self.tables.nodes[node_id], **changes)


def narrow(contract: str, amount: int) -> int:
    """Amounts that a 64-bit field takes."""
    if amount > U64:
        raise Refused(f"{contract}_AmountTooLarge", amount, U64)
    return amount


def fits(value: int, limit: int) -> int:
    """A number that must not leave its field."""
    if not 0 <= value <= limit:
        raise Refused("Panic", PANIC_ARITHMETIC)
    return value


def argument(value: int, limit: int = U128) -> int:
    """An argument; one that does not fit its type is refused before anything happens."""
    if value > limit:
        raise Refused("")
    return value
