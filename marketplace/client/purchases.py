"""Many units of work bought side by side: each at most once, all under one cap, over several nodes.

known answer? → open order again → reserve under the cap → order at the least busy node → else at another
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn

import anyio

from marketplace.client.asks import Ask
from marketplace.client.books import Books
from marketplace.client.bundle import Bundle
from marketplace.client.journal import SeatState, SessionUse
from marketplace.client.placed import Placed
from marketplace.client.problems import GatewayTrouble, hint_of
from marketplace.client.told import Told
from marketplace.client.work import ELSEWHERE, Work
from marketplace.client.workbook import Name, Sent, SentState, Workbook
from marketplace.protocol.errors import BadRequest, Broken, ChainTrouble, ErrorCode, WattError
from marketplace.protocol.money import format_atoms

if TYPE_CHECKING:
    from marketplace.client.aio import AsyncWattline

_PAUSE_SECONDS: Final = 2.0
_TRY_ON: Final = ELSEWHERE | {ErrorCode.PRICE_ABOVE_MAX}
_NO_MONEY: Final = frozenset({ErrorCode.SESSION_UNDERFUNDED, ErrorCode.NO_SESSION})


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One thing to buy.

    Attributes:
        nodes: who may do it, best first.
        most_atoms: no order for it may cost more.
    """

    name: Name
    ask: Ask
    nodes: Sequence[int]
    most_atoms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Limits of the whole; `retries` is how often a unit that failed without charge is ordered again."""

    cap_atoms: int | None = None
    concurrency: int = 4
    retries: int = 3


class StillOpen(WattError):
    """An order that may be charged and has brought no answer. It is asked for again, never replaced."""

    charged = True

    def __init__(self, cause: WattError) -> None:
        super().__init__(cause.code, f"{cause.detail} Its order is kept and may be charged.")
        self.hint = "Run the same command again: it asks for the same order."


class AnswerGone(WattError):
    """An order that was paid and whose answer nobody has any more. It is not bought a second time."""

    charged = True

    def __init__(self, atoms: int) -> None:
        super().__init__(
            ErrorCode.UNKNOWN_JOB, f"This was answered for {atoms} atoms, and the answer is gone."
        )
        self.hint = "To pay for it again, take it into another job."


class Halted(Exception):
    """The work does not go on now; `Purchases.halted_by` says why."""


class Purchases:
    """Buys for one client into one workbook.

    Attributes:
        halted_by: what keeps the rest from being bought now: the cap, an empty account, no gateway.
        interrupted: somebody asked to stop; what was under way has been finished.
        faults: bundles, as JSON, of receipts that did not hold.
    """

    def __init__(
        self,
        client: AsyncWattline,
        book: Workbook,
        terms: Terms,
        *,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._desk, self._pool, self._books = client.desk, client.pool, Books(client.desk)
        self._book, self._terms, self._stop = book, terms, stop
        self._limit = anyio.Semaphore(terms.concurrency)
        self._busy: Counter[int] = Counter()
        self._committed, self._under_way = book.committed_atoms(), 0
        self._changed = anyio.Event()
        self.halted_by: WattError | None = None
        self.interrupted = False
        self.faults: list[Any] = []

    @property
    def committed_atoms(self) -> int:
        """What was paid, and what is set aside for orders under way or of unknown end."""
        return self._committed

    async def settle(self) -> None:
        """Brings journal and vouchers up to what the workbook says was answered before a crash."""
        journal = self._desk.journal
        for session_id in self._book.sessions():
            session = journal.session(session_id)
            if session is None or session.use is not SessionUse.OPEN:
                continue
            for seat in journal.seats(session_id):
                sent = self._book.sent_as(seat.order.encode()) if seat.order and not seat.digest else None
                proof = self._book.proof(sent.name) if sent and sent.state is SentState.DONE else None
                if proof is not None:
                    receipt = Bundle.from_json(proof).receipt
                    digest = receipt.digest(self._desk.domain)
                    journal.end_seat(session_id, seat.seq, amount_atoms=receipt.amount_atoms, digest=digest)
            await self._books.acknowledge(session)

    async def buy(self, unit: Unit) -> Bundle:
        """The unit's answer: the one it has, else that of an order under way, else that of a new one.

        Raises:
            Halted: nothing more is bought now; what the unit has on order is kept.
            WattError: nobody did it. It is charged only where the error says so.
        """
        async with self._limit:
            known = self._book.proof(unit.name)
            if known is not None:
                return Bundle.from_json(known)
            try:
                for sent in self._book.sent(SentState.OPEN, unit.name):
                    bundle = await self._again(sent)
                    if bundle is not None:
                        return bundle
                for lost in self._book.sent(SentState.LOST, unit.name):
                    raise AnswerGone(lost.atoms)
                return await self._order(unit)
            except WattError as error:
                self._book.fail(unit.name, _problem(error))
                raise

    async def _again(self, sent: Sent) -> Bundle | None:
        """The end of an order that a former run left open; None when it has none to give."""
        self._go_on()
        placed, kept = (
            Placed.from_json(sent.placed, self._desk.journal),
            _Kept(self._book, sent.name, sent.id),
        )
        if self._fate(placed, None)[0] is SentState.FREE:
            self._book.end(sent.id, SentState.FREE, 0)
            self._committed -= sent.atoms
            return None
        committed = sent.atoms
        self._under_way += 1
        try:
            await _end_of(Work(self._desk, self._pool, self._books, kept).again(placed))
        except GatewayTrouble as error:
            self._halt(error)
        except WattError as error:
            self._note(error)
            state, committed = self._close(sent.id, placed, error)
            if state is SentState.OPEN:
                raise StillOpen(error) from error
            return None
        else:
            bundle = kept.whole()
            committed = bundle.receipt.amount_atoms
            return bundle
        finally:
            self._committed += committed - sent.atoms
            self._under_way -= 1
            self._wake()

    async def _order(self, unit: Unit) -> Bundle:
        tried: Counter[int] = Counter()
        for attempt in range(self._terms.retries + 1):
            node_id = min(
                unit.nodes, key=lambda node: (tried[node], self._busy[node], unit.nodes.index(node))
            )
            if tried[node_id]:
                await self._desk.around.sleep(_PAUSE_SECONDS * tried[node_id])
            tried[node_id] += 1
            try:
                return await self._at(node_id, unit)
            except GatewayTrouble as error:
                self._halt(error)
            except WattError as error:
                helps = error.spec.retryable or error.code in _TRY_ON
                if attempt < self._terms.retries and helps and not getattr(error, "charged", False):
                    continue
                # No node can help where there is no money or no chain: the other units would fail as well.
                if isinstance(error, ChainTrouble) or (
                    isinstance(error, BadRequest) and error.code in _NO_MONEY
                ):
                    self._halt(error)
                raise
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _at(self, node_id: int, unit: Unit) -> Bundle:
        await self._reserve(unit.most_atoms)
        kept = _Kept(self._book, unit.name)
        ask = dataclasses.replace(unit.ask, node_id=node_id, max_cost_atoms=unit.most_atoms, max_attempts=1)
        most = format_atoms(unit.most_atoms, self._desk.deployment.token_decimals)
        self._busy[node_id] += 1
        committed = 0
        try:
            await _end_of(Work(self._desk, self._pool, self._books, kept).run(ask, most))
        except WattError as error:
            self._note(error)
            if kept.order is not None:
                state, committed = self._close(kept.sent_id, kept.order, error)
                if state is SentState.LOST:
                    raise AnswerGone(committed) from error
                if state is SentState.OPEN and not isinstance(error, GatewayTrouble):
                    raise StillOpen(error) from error
            raise
        else:
            bundle = kept.whole()
            committed = bundle.receipt.amount_atoms
            return bundle
        finally:
            self._committed += committed - unit.most_atoms
            self._busy[node_id] -= 1
            self._under_way -= 1
            self._wake()

    async def _reserve(self, atoms: int) -> None:
        """Sets money aside under the cap; waits for orders under way that may give some back."""
        self._go_on()
        cap = self._terms.cap_atoms
        while cap is not None and self._committed + atoms > cap:
            if not self._under_way:
                self._halt(_over(cap, self._committed, atoms))
            await self._changed.wait()
            self._go_on()
        self._committed += atoms
        self._under_way += 1

    def _close(self, sent_id: int, placed: Placed, error: WattError) -> tuple[SentState, int]:
        state, atoms = self._fate(placed, error)
        self._book.end(sent_id, state, atoms)
        return state, atoms

    def _fate(self, placed: Placed, error: WattError | None) -> tuple[SentState, int]:
        """What became of an order that brought no answer, and what to count for it: the journal knows."""
        seats = self._desk.journal.seats(placed.session.session_id)
        seat = next((seat for seat in seats if seat.seq == placed.order.seq), None)
        if seat is None or seat.state is SeatState.VOID:
            return SentState.FREE, 0
        if seat.state is SeatState.RECEIPTED and error is not None:
            return (SentState.LOST if seat.amount_atoms else SentState.FREE), seat.amount_atoms
        if error is not None and error.code is ErrorCode.RECEIPT_INVALID:
            return SentState.AT_RISK, placed.order.max_amount_atoms
        return SentState.OPEN, placed.order.max_amount_atoms

    def _note(self, error: WattError) -> None:
        faults = error.values.get("faults")
        self.faults += faults if isinstance(faults, tuple) else ()

    def _go_on(self) -> None:
        if self._stop():
            self.interrupted = True
        if self.interrupted or self.halted_by is not None:
            raise Halted

    def _halt(self, error: WattError) -> NoReturn:
        self.halted_by = self.halted_by or error
        self._wake()
        raise Halted from error

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


class _Kept:
    """Writes one unit's orders and answers into the workbook."""

    def __init__(self, book: Workbook, name: Name, sent_id: int = 0) -> None:
        self._book, self._name, self.sent_id = book, name, sent_id
        self.order: Placed | None = None
        self.bundle: Bundle | None = None

    def placed(self, placed: Placed) -> None:
        self.sent_id, self.order = self._book.place(self._name, placed), placed

    def answered(self, placed: Placed, bundle: Bundle) -> None:
        self._book.deliver(self.sent_id, bundle)
        self.order, self.bundle = placed, bundle

    def whole(self) -> Bundle:
        """The answer of an order that ended well."""
        if self.bundle is None:
            raise Broken(ErrorCode.INTERNAL, "an order ended well and brought no answer")
        return self.bundle


async def _end_of(pieces: AsyncGenerator[Told, None]) -> None:
    async with aclosing(pieces):
        async for _ in pieces:
            pass


def _problem(error: WattError) -> dict[str, Any]:
    return {
        "code": error.code.value,
        "message": error.detail,
        "hint": hint_of(error),
        "charged": bool(getattr(error, "charged", False)),
        "retryable": error.spec.retryable,
    }


def _over(cap_atoms: int, committed_atoms: int, need_atoms: int) -> BadRequest:
    return BadRequest(
        ErrorCode.PRICE_ABOVE_MAX,
        f"The next order may cost {need_atoms} atoms; of {cap_atoms} allowed, {committed_atoms} are used.",
        hint="Run the same command again with a higher cap: what is done is not paid again.",
        cap_atoms=cap_atoms,
        committed_atoms=committed_atoms,
        need_atoms=need_atoms,
    )
