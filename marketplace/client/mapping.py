"""A file of inputs over several nodes: a forecast, then each row bought at most once.

A row is a paid job of its own, or one with others (`packs`).

    plan = await mapping.forecast(client, MapJob(source=…, out=…, recipe=…))
    statement = await mapping.run(client, plan, Terms(cap_atoms=500_000))

Beside the results `out.jsonl` stand `out.receipts.jsonl`, `out.errors.jsonl` and `out.state.db`. The last is
the record of what was bought: the same job again goes on where it stopped, and nothing done is paid again.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from marketplace.client.bundle import Bundle
from marketplace.client.map_plan import MapJob as MapJob
from marketplace.client.map_plan import Plan, check_same_job
from marketplace.client.map_plan import forecast as forecast
from marketplace.client.packs import Pack
from marketplace.client.purchases import Halted, Purchases, Terms, Unit
from marketplace.client.recipes import pinned
from marketplace.client.sellers import Sellers
from marketplace.client.statement import Tally, beside, write_lines
from marketplace.client.workbook import Workbook
from marketplace.protocol.errors import ErrorCode, WattError
from marketplace.protocol.messages import ReceiptStatus
from marketplace.protocol.payloads import Answer

if TYPE_CHECKING:
    from marketplace.client.aio import AsyncWattline

# The row a job gives next, the job's place, its line, and what it gives then.
_Coming = tuple[int, int, dict[str, Any], Iterator[dict[str, Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a run stands."""

    done: int
    failed: int
    left: int
    spent_atoms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What all runs of a job came to.

    Attributes:
        tally: sums of the receipts in `receipts`, to the atom.
        uncertain_atoms: most that is charged beside: orders without a known end, or without a good one.
        halted_by: why it stopped before its end; None where it did not.
    """

    rows: int
    done: int
    failed: int
    left: int
    tally: Tally
    uncertain_atoms: int
    out: Path
    receipts: Path
    errors: Path | None
    halted_by: WattError | None
    interrupted: bool
    faults: tuple[Any, ...]


async def run(
    client: AsyncWattline,
    plan: Plan,
    terms: Terms,
    *,
    stop: Callable[[], bool] = lambda: False,
    tell: Callable[[Progress], None] = lambda _: None,
) -> Statement:
    """Buys what is left, writes all results there are, and sums them up.

    Once `stop` says so, rows under way are finished and no other is begun.

    Raises:
        BadRequest: another run is at work on the same results.
    """
    with Workbook(plan.job.state) as book:
        _claim(book, plan)
        purchases = Purchases(client, book, terms, stop=stop)
        await purchases.settle()
        await _buy(purchases, plan, terms.concurrency, tell)
        return _conclude(book, purchases, plan)


async def _buy(purchases: Purchases, plan: Plan, concurrency: int, tell: Callable[[Progress], None]) -> None:
    waiting = (pack for pack in plan.packs if pack.name not in plan.done)
    done, failed = len(plan.asked) - plan.left, 0

    async def work() -> None:
        nonlocal done, failed
        for pack in waiting:
            try:
                await purchases.buy(_unit(pack, plan.sellers))
                done += len(pack.rows)
            except Halted:
                return
            except WattError:
                failed += len(pack.rows)
            left = len(plan.asked) - done - failed
            tell(Progress(done=done, failed=failed, left=left, spent_atoms=purchases.committed_atoms))

    async with anyio.create_task_group() as group:
        for _ in range(min(concurrency, plan.left)):
            group.start_soon(work)


def _unit(pack: Pack, found: Sellers) -> Unit:
    return Unit(
        name=pack.name,
        ask=pinned(pack.ask, found.model_id),
        nodes=found.nodes,
        most_atoms=found.ceilings(pack.ask)[1],
    )


def _conclude(book: Workbook, purchases: Purchases, plan: Plan) -> Statement:
    job, sums = plan.job, Tally()
    known = book.done()
    done = sum(len(pack.rows) for pack in plan.packs if pack.name in known)
    failures = list(_failures(book, plan))
    errors = beside(job.out, "errors.jsonl")
    receipts = beside(job.out, "receipts.jsonl")
    write_lines(job.out, _results(book, plan))
    write_lines(receipts, _counted(book, sums))
    write_lines(errors, failures)
    return Statement(
        rows=len(plan.asked) + len(plan.bad),
        done=done,
        failed=len(failures),
        left=len(plan.asked) + len(plan.bad) - done - len(failures),
        tally=sums,
        uncertain_atoms=book.unanswered_atoms(),
        out=job.out,
        receipts=receipts,
        errors=errors if failures else None,
        halted_by=purchases.halted_by,
        interrupted=purchases.interrupted,
        faults=tuple(purchases.faults),
    )


def _results(book: Workbook, plan: Plan) -> Iterator[dict[str, Any]]:
    """A line a row that is done, in the order of the file."""
    # Packs may lie inside each other; one is opened when its first row is due, so few are in memory.
    coming: list[_Coming] = []
    for place, pack in enumerate(plan.packs):
        yield from _due(coming, pack.rows[0].row.number)
        _follow(coming, place, _lines(book, pack))
    yield from _due(coming, None)


def _due(coming: list[_Coming], before: int | None) -> Iterator[dict[str, Any]]:
    while coming and (before is None or coming[0][0] < before):
        _, place, line, rest = heapq.heappop(coming)
        yield line
        _follow(coming, place, rest)


def _follow(coming: list[_Coming], place: int, rest: Iterator[dict[str, Any]]) -> None:
    line = next(rest, None)
    if line is not None:
        heapq.heappush(coming, (int(line["row"]), place, line, rest))


def _lines(book: Workbook, pack: Pack) -> Iterator[dict[str, Any]]:
    proof = book.proof(pack.name)
    if proof is None:
        return
    bundle = Bundle.from_json(proof)
    receipt, shares = bundle.receipt, pack.shares(bundle.receipt.amount_atoms)
    together = {"rows_in_job": len(pack.rows)} if len(pack.rows) > 1 else {}
    for (each, answer), atoms in zip(pack.shown(Answer(bundle.chunks)), shares, strict=True):
        named = each.row.values.get("id")
        yield {
            "row": each.row.number,
            "line": each.row.line,
            **({"id": named} if isinstance(named, str | int) else {}),
            **answer,
            "status": ReceiptStatus(receipt.status).name.lower(),
            "node_id": bundle.node_id,
            "cost_atoms": str(atoms),
            # The receipt counts the whole job.
            "units_in": None if together else receipt.units_in,
            "units_out": None if together else receipt.units_out,
            "receipt_id": bundle.receipt_id,
            **together,
        }


def _counted(book: Workbook, sums: Tally) -> Iterator[dict[str, Any]]:
    for _, proof in book.proofs():
        sums.add(Bundle.from_json(proof))
        yield proof


def _failures(book: Workbook, plan: Plan) -> Iterator[dict[str, Any]]:
    found = [
        (each.row.number, {"row": each.row.number, "line": each.row.line, **problem})
        for pack in plan.packs
        if (problem := book.failure(pack.name)) and book.proof(pack.name) is None
        for each in pack.rows
    ]
    for bad in plan.bad:
        told = {"code": ErrorCode.INVALID_REQUEST.value, "message": bad.why, "charged": False}
        found.append((bad.number, {"row": bad.number, "line": bad.line, **told}))
    yield from (told for _, told in sorted(found, key=lambda each: each[0]))


def _claim(book: Workbook, plan: Plan) -> None:
    """Makes the record this job's."""
    check_same_job(book, plan.job, plan.digest)
    book.say(
        {
            "kind": "map",
            "file": plan.digest,
            "recipe": plan.job.recipe.to_json(),
            "model_id": plan.sellers.model_id,
        }
    )
