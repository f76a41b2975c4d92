"""A file of inputs, one paid job a row, over several nodes: a forecast, then each row bought at most once.

    plan = await mapping.forecast(client, MapJob(source=…, out=…, recipe=…))
    statement = await mapping.run(client, plan, Terms(cap_atoms=500_000))

Beside the results `out.jsonl` stand `out.receipts.jsonl`, `out.errors.jsonl` and `out.state.db`. The last is
the record of what was bought: the same job again goes on where it stopped, and nothing done is paid again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from marketplace.client.bundle import Bundle
from marketplace.client.map_plan import AskedRow, Plan, check_same_job
from marketplace.client.map_plan import MapJob as MapJob
from marketplace.client.map_plan import forecast as forecast
from marketplace.client.purchases import Halted, Purchases, Terms, Unit
from marketplace.client.recipes import pinned
from marketplace.client.sellers import Sellers
from marketplace.client.statement import Tally, beside, write_lines
from marketplace.client.workbook import Workbook
from marketplace.protocol.errors import ErrorCode, WattError
from marketplace.protocol.messages import ReceiptStatus
from marketplace.protocol.payloads import Answer, task_type

if TYPE_CHECKING:
    from marketplace.client.aio import AsyncWattline


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
    waiting = (each for each in plan.asked if each.name not in plan.done)
    done, failed = len(plan.asked) - plan.left, 0

    async def work() -> None:
        nonlocal done, failed
        for each in waiting:
            try:
                await purchases.buy(_unit(each, plan.sellers))
                done += 1
            except Halted:
                return
            except WattError:
                failed += 1
            left = len(plan.asked) - done - failed
            tell(Progress(done=done, failed=failed, left=left, spent_atoms=purchases.committed_atoms))

    async with anyio.create_task_group() as group:
        for _ in range(min(concurrency, plan.left)):
            group.start_soon(work)


def _unit(each: AskedRow, found: Sellers) -> Unit:
    return Unit(
        name=each.name,
        ask=pinned(each.ask, found.model_id),
        nodes=found.nodes,
        most_atoms=found.ceilings(each.ask)[1],
    )


def _conclude(book: Workbook, purchases: Purchases, plan: Plan) -> Statement:
    job, sums = plan.job, Tally()
    known = book.done()
    done = sum(each.name in known for each in plan.asked)
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
    for each in plan.asked:
        proof = book.proof(each.name)
        if proof is None:
            continue
        bundle = Bundle.from_json(proof)
        receipt, named = bundle.receipt, each.row.values.get("id")
        yield {
            "row": each.row.number,
            "line": each.row.line,
            **({"id": named} if isinstance(named, str | int) else {}),
            **task_type(plan.job.recipe.task).shown(Answer(bundle.chunks)),
            "status": ReceiptStatus(receipt.status).name.lower(),
            "node_id": bundle.node_id,
            "cost_atoms": str(receipt.amount_atoms),
            "units_in": receipt.units_in,
            "units_out": receipt.units_out,
            "receipt_id": bundle.receipt_id,
        }


def _counted(book: Workbook, sums: Tally) -> Iterator[dict[str, Any]]:
    for _, proof in book.proofs():
        sums.add(Bundle.from_json(proof))
        yield proof


def _failures(book: Workbook, plan: Plan) -> Iterator[dict[str, Any]]:
    found = [
        (each.row.number, {"row": each.row.number, "line": each.row.line, **problem})
        for each in plan.asked
        if (problem := book.failure(each.name)) and book.proof(each.name) is None
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
