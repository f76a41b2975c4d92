"""One market twice, as model and in the EVM: every call goes to both, and what both say is compared."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tests.model.evm import Answer, Market, error_named, expected_logs, expected_refusal
from tests.model.messages import Item, Terms, short
from tests.model.records import Places, Refused, Rules, Tables
from tests.model.settlement import PACKED_BYTES, Model, Status

EVERYTHING_EVERY_CALLS: Final = 25


class Mismatch(AssertionError):
    """Model and EVM disagree."""


@dataclass(slots=True)
class Tally:
    """What was really checked, over all markets."""

    done: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    views: int = 0
    has_plain: bool = False

    def add(self, market: Tally, *, is_plain: bool) -> None:
        """Takes a market's counts over; of those that only zeros made, which are all the same, the first."""
        if is_plain and self.has_plain:
            return
        self.has_plain |= is_plain
        self.views += market.views
        for name in ("done", "refused", "errors", "statuses", "events"):
            getattr(self, name).update(getattr(market, name))

    @property
    def calls(self) -> int:
        return self.done.total() + self.refused.total()

    def shares(self) -> list[str]:
        """Calls and share of successes of each verb, most called first."""
        calls = self.done + self.refused
        return [f"{verb:<38} {n:>8} {self.done[verb] * 100 // n:>4} %" for verb, n in calls.most_common()]


@dataclass(frozen=True, slots=True)
class Sent:
    """A call that was made, to be made again."""

    verb: str
    caller: int
    values: tuple[Any, ...]


ModelMaker = Callable[[Rules, Places], Model]


class Bench:
    """Verbs are named `contract.verb`, as the contract has them."""

    def __init__(
        self,
        tally: Tally,
        parties: tuple[int, int, int],
        *,
        rules: Rules | None = None,
        evm_rules: Rules | None = None,
        code: dict[str, bytes] | None = None,
        maker: ModelMaker = Model,
    ) -> None:
        """`parties` are court, treasury and vault; other code, rules or model plant a difference."""
        rules = rules or Rules()
        self.market = Market(evm_rules or rules, *parties, code=code)
        self.model = maker(rules, self.market.places)
        self.sent: list[Sent] = []
        self._tally = tally
        self._count = 0

    def set_time(self, now: int) -> None:
        self.model.now = now
        self.market.set_time(now)

    def prepare(self, verb: str, caller: int, *values: Any) -> None:
        """A call of the scene, compared as any other but not counted."""
        if not self._both(verb, caller, values):
            raise Mismatch(f"{verb} was refused while the scene was set")

    def check(self, verb: str, caller: int, *values: Any) -> bool:
        """Makes a call on both sides; whether it succeeded. Raises `Mismatch`."""
        self.sent.append(Sent(verb, caller, values))
        ok = self._both(verb, caller, values)
        (self._tally.done if ok else self._tally.refused)[verb] += 1
        self._count += 1
        if self._count % EVERYTHING_EVERY_CALLS == 0:
            self.compare_everything()
        return ok

    def compare_everything(self) -> None:
        """Every fact that any view gives, and the laws that the model itself must keep."""
        tables = self.model.tables
        self._compare_small()
        self._compare_places(tables.sessions, tables.claims, tables.keys)
        for holder, amount in tables.tokens.items():
            self._view([amount], "token", "balanceOf", holder)
        for node_id, node in tables.nodes.items():
            self._view([node.serves, node.epoch], "escrow", "serving", node_id)
            self._view([node.serves, node.epoch], "registry", "serving", node_id)
            self._view([node.owner], "registry", "ownerOf", node_id)
        for (node_id, epoch), signer in tables.signers.items():
            self._view([signer], "registry", "signerAt", node_id, epoch)
        check_laws(self.model)

    # ---------------------------------------------------------------------------------------------- helpers

    def _both(self, verb: str, caller: int, values: tuple[Any, ...]) -> bool:
        before = self.model.tables.copy()
        refused = self._ask_model(verb, caller, values)
        contract, name = verb.split(".")
        answer = self.market.call(contract, name, caller, values)
        if refused is None:
            self._compare_logs(verb, answer)
        else:
            self._compare_refusals(verb, refused, answer)
        self._compare_state(before, values)
        return refused is None

    def _ask_model(self, verb: str, caller: int, values: tuple[Any, ...]) -> Refused | None:
        try:
            with self.model.call(caller):
                method_of(self.model, verb)(*values)
        except Refused as refused:
            return refused
        return None

    def _compare_logs(self, verb: str, answer: Answer) -> None:
        if answer.refusal is not None:
            raise Mismatch(f"{verb}: the model does it, the EVM refuses: {error_named(answer.refusal)}")
        wanted = expected_logs(self.model.events)
        if answer.logs != wanted:
            raise Mismatch(f"{verb}: events {self.model.events}, the EVM logged {answer.logs}")
        for _, name, values in self.model.events:
            self._tally.events[name] += 1
            if name == "VoucherSkipped":
                self._tally.statuses[Status(values[1]).name] += 1
            elif name in ("VoucherSettled", "BatchSettled"):
                packed = len(values[2]) // PACKED_BYTES if name == "BatchSettled" else 1
                self._tally.statuses[Status.SETTLED.name] += packed

    def _compare_refusals(self, verb: str, refused: Refused, answer: Answer) -> None:
        if answer.refusal is None:
            raise Mismatch(f"{verb}: the model refuses {refused}, the EVM does it")
        wanted = expected_refusal(refused)
        if wanted is not None and answer.refusal != wanted:
            got = f"{error_named(answer.refusal)} {answer.refusal[4:].hex()}"
            raise Mismatch(f"{verb}: the model refuses {refused}, the EVM refuses {got}")
        self._tally.errors[refused.error or "no word"] += 1

    def _compare_state(self, before: Tables, values: tuple[Any, ...]) -> None:
        """What the model changed, what the call named, and all that is small."""
        tables = self.model.tables
        sessions = set(_changed(before.sessions, tables.sessions))
        keys = set(_changed(before.keys, tables.keys))
        claims = {short_id for _, short_id in sessions} | set(_changed(before.claims, tables.claims))
        for terms in _terms_in(values):
            if terms.key < 1 << 160 and terms.buyer < 1 << 160:
                session_id = self.model.session_id(terms)
                sessions.add((terms.key, short(session_id)))
                claims.add(short(session_id))
                keys.add((terms.buyer, terms.key))
        named = _ids_in(values)
        sessions |= {place for place in tables.sessions if place[1] in named}
        claims |= named
        check_rises(before, tables, sessions)
        self._compare_places(sessions, claims, keys)
        self._compare_small()

    def _compare_small(self) -> None:
        tables, places = self.model.tables, self.model.places
        self._view([self.model.fee_bps()], "escrow", "feeBps")
        self._view([tables.fee["fee"].uncollected], "escrow", "fees")
        self._view([tables.totals["slashed"]], "registry", "slashed")
        self._view([len(tables.nodes)], "registry", "nodeCount")
        for holder in (places.escrow, places.registry):
            self._view([tables.tokens.get(holder, 0)], "token", "balanceOf", holder)
        for buyer, amount in tables.accounts.items():
            self._view([amount], "escrow", "accountOf", buyer)
        for node_id, node in tables.nodes.items():
            self._view([node.settler, node.earnings], "escrow", "nodeAccount", node_id)
        for owner, provider in tables.providers.items():
            self._view(provider.words(), "registry", "provider", owner)

    def _compare_places(
        self,
        sessions: Iterable[tuple[int, bytes]],
        claims: Iterable[bytes],
        keys: Iterable[tuple[int, int]],
    ) -> None:
        for key, short_id in sessions:
            self._view(self.model.session(key, short_id).words(), "escrow", "session", short_id, key)
        for short_id in claims:
            self._view(self.model.claim_of(short_id).words(), "escrow", "claimOf", short_id)
        for buyer, key in keys:
            self._view(self.model.key(buyer, key).words(), "escrow", "keyOf", buyer, key)

    def _view(self, wanted: Sequence[int], contract: str, view: str, *values: int | bytes) -> None:
        self._tally.views += 1
        got = self.market.read(contract, view, *values)
        if got != list(wanted):
            raise Mismatch(f"{contract}.{view}{values}: the model has {list(wanted)}, the EVM {got}")


def method_of(model: Model, verb: str) -> Callable[..., None]:
    """The model's method of a verb; what only the registry may tell the escrow has a name of its own."""
    contract, name = verb.split(".")
    if contract == "escrow" and name in ("setSettler", "setNode", "setServing"):
        return model.told_by_another
    method: Callable[..., None] = getattr(model, re.sub("([A-Z])", r"_\1", name).lower())
    return method


def check_rises(before: Tables, after: Tables, places: Iterable[tuple[int, bytes]]) -> None:
    """Law 3: paid and throughSeq never fall, and what is closed stays closed."""
    for place in places:
        was, now = before.sessions.get(place), after.sessions.get(place)
        if was is None:
            continue
        if now is None or now.paid < was.paid or now.through_seq < was.through_seq or was.closed > now.closed:
            raise Mismatch(f"law 3: {was} became {now}")


def check_laws(model: Model) -> None:
    """Laws 1 and 7 of the protocol page, to the atom."""
    tables = model.tables
    in_sessions, claimed = 0, Counter[int]()
    for (_, short_id), session in tables.sessions.items():
        claim = model.claim_of(short_id)
        waiting = claim.pending + claim.held
        in_sessions += waiting if session.closed else session.deposited - session.paid
        claimed[tables.nodes[session.node_id].owner] += waiting
    earnings = sum(node.earnings for node in tables.nodes.values())
    parts = sum(tables.accounts.values()) + in_sessions + earnings + tables.fee["fee"].uncollected
    held = tables.tokens[model.places.escrow]
    if held != parts:
        raise Mismatch(f"law 1: the escrow has {held} atoms, its parts are {parts}")
    stake = sum(provider.staked + provider.unstaking for provider in tables.providers.values())
    if tables.tokens[model.places.registry] != stake + tables.totals["slashed"]:
        raise Mismatch("law 7: slashed, staked and leaving are not what the registry has")
    for owner, provider in tables.providers.items():
        if provider.locked != claimed[owner]:
            raise Mismatch(f"law 7: {provider.locked} locked, {claimed[owner]} claimed")


def _changed(before: dict[Any, Any], after: dict[Any, Any]) -> list[Any]:
    return [place for place, record in after.items() if before.get(place) is not record]


def _ids_in(values: tuple[Any, ...]) -> set[bytes]:
    """Short ids of the sessions that vouchers or the court name."""
    found: set[bytes] = set()
    for value in values:
        if isinstance(value, bytes) and len(value) > 32:
            found |= {value[at : at + 24] for at in range(0, len(value) - 35, 36)}
        elif isinstance(value, bytes) and len(value) == 32:
            found.add(short(value))
        elif isinstance(value, list):
            found |= {short(item.session_id) for item in value if isinstance(item, Item)}
    return found


def _terms_in(values: tuple[Any, ...]) -> list[Terms]:
    found = [value for value in values if isinstance(value, Terms)]
    lists = [value for value in values if isinstance(value, list)]
    return found + [value for inner in lists for value in inner if isinstance(value, Terms)]
