"""Runs batches: places their lines as ordinary jobs, a few at a time, and keeps what comes of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from marketplace import delivery
from marketplace.batches import rules, step
from marketplace.dispatch.terms import Ask, Once
from marketplace.flow import Market
from marketplace.funding import step as funding
from marketplace.keeper.loops import Probe, no_probe
from marketplace.openai import batches as shapes
from marketplace.openai.batches import BatchStatus
from marketplace.protocol.errors import BadRequest, ErrorCode, LostRace, WattError
from marketplace.protocol.phases import HAS_RESULT, OPEN, EndReason, JobPhase
from marketplace.protocol.signing import Signer
from marketplace.store import batches, files, jobs, receipts
from marketplace.store.batch_tables import BatchLineRow, BatchRow
from marketplace.store.batches import LineState, Spent
from marketplace.store.jobs import OrderState
from marketplace.store.tables import JobRow, Tx
from marketplace.telemetry.logs import get_logger
from marketplace.telemetry.names import Log

_IN_FLIGHT: Final = 16
_AT_ONCE: Final = 200
_NO_ROOM: Final = "node_busy: the nodes have no room for more"
log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Result:
    """What came of a line: a line of a file, or another try (`state` waiting)."""

    line: BatchLineRow
    state: LineState
    body: bytes = b""
    spent: Spent | None = None
    tries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pause:
    """Nothing more of a model is placed for a batch until then; `times` in a row there was no room."""

    until_ms: int
    times: int


class BatchRunner:
    """One turn moves every batch on. It may be cut short anywhere: a line's job is known by the line's name.

    Args:
        in_flight: jobs of all batches together that nodes have at a time.
    """

    def __init__(self, market: Market, *, in_flight: int = _IN_FLIGHT, probe: Probe = no_probe) -> None:
        self._market, self._in_flight, self._probe = market, in_flight, probe
        self._pauses: dict[tuple[str, str], _Pause] = {}
        self._last = ""

    async def step(self) -> None:
        """Collects what has ended, places what waits, ends what is done."""
        found = await self._market.read(batches.unfinished)
        # Begins behind the batch of the last turn's end: one that fails holds up no other.
        for batch in sorted(found, key=lambda row: (row.batch_id <= self._last, row.batch_id)):
            self._last = batch.batch_id
            try:
                await self._advance(batch, share=max(1, self._in_flight // len(found)))
            except LostRace as race:
                log.info(Log.RACE_LOST, reason=race.detail)

    async def _advance(self, batch: BatchRow, share: int) -> None:
        if batch.status == BatchStatus.FINALIZING:
            await self._finish(batch)
            return
        if batch.status == BatchStatus.VALIDATING:
            await self._begin(batch)
            return
        await self._collect(batch)
        if await self._close(batch):
            return
        now = self._market.clock()
        if batch.ending is None and now >= batch.expires_at_ms:
            batch = await self._market.write(lambda tx: _expire(tx, batch.batch_id))
        if batch.ending is not None:
            await self._drain(batch, BatchStatus(batch.ending))
        else:
            await self._fill(batch, share)

    # ---- beginning and end ----------------------------------------------------------------------------

    async def _begin(self, batch: BatchRow) -> None:
        now = self._market.clock()

        def work(tx: Tx) -> None:
            row = batches.get(tx, batch.batch_id)
            if row.failed == row.total:
                ending = BatchStatus.FAILED.value
                batches.move(tx, row, BatchStatus.FINALIZING, ending=ending, finalizing_at_ms=now)
            elif row.status == BatchStatus.VALIDATING:
                batches.move(tx, row, BatchStatus.IN_PROGRESS, began_at_ms=now)

        await self._market.write(work)

    async def _close(self, batch: BatchRow) -> bool:
        """Whether no line waits or runs any more."""
        now = self._market.clock()
        if await self._market.read(lambda tx: batches.has_open(tx, batch.batch_id)):
            return False

        def work(tx: Tx) -> None:
            row = batches.get(tx, batch.batch_id)
            batches.move(tx, row, BatchStatus.FINALIZING, finalizing_at_ms=now, problem="")

        await self._market.write(work)
        return True

    async def _finish(self, batch: BatchRow) -> None:
        now = self._market.clock()
        done = await self._market.write(lambda tx: step.finish(tx, batch.batch_id, now))
        self._pauses = {key: pause for key, pause in self._pauses.items() if key[0] != batch.batch_id}
        log.info(
            Log.BATCH_ENDED,
            batch_id=done.batch_id,
            trace_id=done.trace_id,
            status=done.status,
            completed=done.completed,
            failed=done.failed,
            cost_atoms=done.cost_atoms,
        )

    async def _drain(self, batch: BatchRow, ending: BatchStatus) -> None:
        """Places nothing more: jobs end with what they have, lines without one are never made."""
        for _, job in await self._market.read(lambda tx: batches.placed(tx, batch.batch_id)):
            if job.ended_at_ms is None and job.cancel_asked_ms is None:
                await self._market.cancel(job.job_id)
        ended = await self._market.write(lambda tx: _leave(tx, batch, ending))
        self._market.metrics.count("batch_lines_total", ended, end="failed")

    # ---- lines out ------------------------------------------------------------------------------------

    async def _fill(self, batch: BatchRow, share: int) -> None:
        flying = await self._market.read(batches.in_flight)
        room = min(share - flying.get(batch.batch_id, 0), self._in_flight - sum(flying.values()))
        blocked = self._paused(batch.batch_id)
        problem = _NO_ROOM if blocked else ""
        while room > 0:
            lines = await self._next(batch.batch_id, room, sorted(blocked))
            if not lines:
                break
            for line in lines:
                if line.model in blocked:
                    continue
                refusal = await self._place(batch, line)
                if refusal is None:
                    room -= 1
                else:
                    blocked.add(line.model)
                    problem = f"{refusal.code}: {refusal.detail}"
        if problem != batch.problem:
            await self._market.write(lambda tx: batches.note_problem(tx, batch.batch_id, problem))
            if problem:
                log.info(Log.BATCH_WAITS, batch_id=batch.batch_id, reason=problem)

    async def _next(self, batch_id: str, limit: int, without: Sequence[str]) -> list[BatchLineRow]:
        return await self._market.read(lambda tx: batches.waiting(tx, batch_id, limit, without=without))

    async def _place(self, batch: BatchRow, line: BatchLineRow) -> WattError | None:
        """Why the line cannot be placed now; None when it was, or never can be."""
        market = self._market
        try:
            ask = await self._ask(batch, line)
            running = await market.place(ask)
        except LostRace as race:
            return race
        except BadRequest as problem:
            if not rules.is_lines_fault(problem.code):
                return problem
            await self._keep(batch, self._failed(batch, line, problem))
            return None
        self._probe("batch.placed")
        await market.write(lambda tx: batches.place(tx, line, running.job_id))
        return None

    async def _ask(self, batch: BatchRow, line: BatchLineRow) -> Ask:
        market = self._market
        key = await market.read(lambda tx: funding.held_key(tx, market.vault, batch.key))
        if key is None:
            raise BadRequest(ErrorCode.UNKNOWN_KEY)
        entry = await self._entry(batch, line)
        return _ask_of(batch, line, key, entry, fresh_seed=int.from_bytes(market.random(8), "big"))

    async def _entry(self, batch: BatchRow, line: BatchLineRow) -> shapes.Entry:
        raw = await self._market.read(lambda tx: files.line(tx, batch.input_file_id, line.number))
        return shapes.read_entry(line.number, raw or b"")

    def _paused(self, batch_id: str) -> set[str]:
        now = self._market.clock()
        return {
            model for (of, model), pause in self._pauses.items() if of == batch_id and pause.until_ms > now
        }

    # ---- answers in -----------------------------------------------------------------------------------

    async def _collect(self, batch: BatchRow) -> None:
        placed = await self._market.read(lambda tx: batches.placed(tx, batch.batch_id))
        ended = [(line, job) for line, job in placed if job.ended_at_ms is not None]
        # One by one: an answer may have megabytes.
        for line, job in ended:
            result = await self._result(batch, line, job)
            self._probe("batch.read")
            await self._keep(batch, result)

    async def _result(self, batch: BatchRow, line: BatchLineRow, job: JobRow) -> _Result:
        problem = delivery.problem_of(job, job.job_id)
        if problem is None:
            self._pauses.pop((batch.batch_id, line.model), None)
            try:
                return await self._answered(batch, line, job)
            except BadRequest as gone:
                return await self._deleted(batch, line, job, gone)
        past = await self._market.read(lambda tx: jobs.orders_of(tx, job.job_id))
        was_taken = any(order.state != OrderState.REFUSED for order in past)
        match rules.after(EndReason(job.end_reason or ""), line.tries + 1, was_taken=was_taken):
            case rules.Next.FAIL:
                return self._failed(batch, line, problem)
            case rules.Next.RETRY:
                return _Result(line=line, state=LineState.WAITING, tries=line.tries + 1)
            case rules.Next.PAUSE:
                self._pause(batch.batch_id, line.model)
                return _Result(line=line, state=LineState.WAITING, tries=line.tries)

    async def _answered(self, batch: BatchRow, line: BatchLineRow, job: JobRow) -> _Result:
        market = self._market
        found = await market.read(lambda tx: delivery.delivery(tx, job, market.deployment))
        call = shapes.call_of(await self._entry(batch, line))
        body = shapes.answer_of(call, job.job_id, job.created_at_ms // 1000, found.answer)
        whole = body | delivery.extras([found], market.deployment)
        name = rules.line_id(batch.batch_id, line.number)
        spent = Spent(
            units_in=found.receipt.units_in,
            units_out=found.receipt.units_out,
            cost_atoms=found.receipt.amount_atoms,
            energy_millijoules=found.receipt.energy_millijoules,
        )
        out = await market.off_loop(lambda: shapes.answered(name, line.custom_id, whole))
        return _Result(line=line, state=LineState.DONE, body=out, spent=spent)

    async def _deleted(self, batch: BatchRow, line: BatchLineRow, job: JobRow, gone: BadRequest) -> _Result:
        """Its buyer deleted the answer before it was collected; what it cost stays paid."""
        row = await self._market.read(lambda tx: receipts.find(tx, job.order_hash or ""))
        cost = row.amount_atoms if row is not None else 0
        problem = BadRequest(gone.code, gone.detail, job_id=job.job_id, charged=cost > 0)
        return replace(self._failed(batch, line, problem), spent=Spent(cost_atoms=cost))

    def _failed(self, batch: BatchRow, line: BatchLineRow, problem: WattError) -> _Result:
        name = rules.line_id(batch.batch_id, line.number)
        body = shapes.refused(name, line.custom_id, problem)
        return _Result(line=line, state=LineState.FAILED, body=body)

    async def _keep(self, batch: BatchRow, result: _Result) -> None:
        await self._market.write(lambda tx: _keep(tx, batch, result))
        if result.state is not LineState.WAITING:
            end = "completed" if result.state is LineState.DONE else "failed"
            self._market.metrics.count("batch_lines_total", end=end)

    def _pause(self, batch_id: str, model: str) -> None:
        now, last = self._market.clock(), self._pauses.get((batch_id, model))
        if last is None or last.until_ms <= now:
            times = last.times + 1 if last else 0
            pause = _Pause(until_ms=now + rules.pause_ms(times), times=times)
            self._pauses[batch_id, model] = pause


def _ask_of(batch: BatchRow, line: BatchLineRow, key: Signer, entry: shapes.Entry, *, fresh_seed: int) -> Ask:
    call = shapes.call_of(entry)
    name = rules.line_name(batch.batch_id, line.number)
    return Ask(
        key=key,
        model=call.model,
        payload=shapes.payload_of(call, fresh_seed),
        trace_id=batch.trace_id,
        # What was quoted holds whatever prices do meanwhile.
        max_cost_atoms=line.ceiling_atoms,
        # Until its results are there; then they say how long.
        keep_ms=rules.WINDOW_MS + batch.keep_ms,
        node_id=call.node,
        once=Once(name=name, fingerprint=name),
    )


def _keep(tx: Tx, batch: BatchRow, result: _Result) -> None:
    line = result.line
    if result.state is LineState.WAITING:
        batches.put_back(tx, line, result.tries)
        return
    batches.end(tx, line, result.state, result.spent)
    file_id = batch.output_file_id if result.state is LineState.DONE else batch.error_file_id
    files.add_lines(tx, file_id, [(line.number, result.body)])


def _expire(tx: Tx, batch_id: str) -> BatchRow:
    row = batches.get(tx, batch_id)
    if row.ending is None:
        batches.move(tx, row, BatchStatus(row.status), ending=BatchStatus.EXPIRED.value)
    return row


def _leave(tx: Tx, batch: BatchRow, ending: BatchStatus) -> int:
    """Ends lines that wait; gives how many."""
    ended = 0
    for line in batches.waiting(tx, batch.batch_id, _AT_ONCE):
        job = batches.job_of(tx, batch.key, rules.line_name(batch.batch_id, line.number))
        if job is not None and JobPhase(job.phase) in HAS_RESULT | OPEN:
            # Placed, and the gateway ended before it noted that.
            batches.place(tx, line, job.job_id)
            continue
        batches.end(tx, line, LineState.FAILED)
        name = rules.line_id(batch.batch_id, line.number)
        body = shapes.unstarted(name, line.custom_id, ending)
        files.add_lines(tx, batch.error_file_id, [(line.number, body)])
        ended += 1
    return ended
