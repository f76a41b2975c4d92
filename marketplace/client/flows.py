"""Runs a flow: steps side by side where the graph allows, under one cap; what is done is never bought again.

A step's job is known by what it asks. So a changed step is bought again, with those after it whose question
changes through it, and with no other.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from marketplace.client.asks import Ask
from marketplace.client.bundle import Bundle
from marketplace.client.flow_file import Flow, Step
from marketplace.client.outputs import gathered, outputs_of, stand_in
from marketplace.client.purchases import Halted, Purchases, Terms, Unit
from marketplace.client.recipes import digest_of, pinned
from marketplace.client.sellers import Sellers, sellers
from marketplace.client.statement import Tally, beside, write_lines
from marketplace.client.workbook import Name, Workbook
from marketplace.protocol.errors import BadRequest, ErrorCode, WattError
from marketplace.protocol.payloads import BLANK_MODEL, Answer, parse_payload

if TYPE_CHECKING:
    from marketplace.client.aio import AsyncWattline


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowJob:
    """A flow with its inputs; `out` takes its outputs, and receipts and record stand beside."""

    flow: Flow
    inputs: Mapping[str, Any]
    out: Path
    node_ids: tuple[int, ...] = ()

    @property
    def state(self) -> Path:
        """Where the record of what was bought is kept."""
        return beside(self.out, "state.db")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPlan:
    """A step priced: `done` of its `jobs` have their answer, the rest costs at most so much.

    `why_not` says why it is skipped, where that is known already; else it is priced as if it ran.
    """

    step: Step
    jobs: int
    done: int
    most_atoms: int
    sellers: Sellers | None
    why_not: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowPlan:
    """A flow priced. What reads answers that do not exist yet is priced by their likely size."""

    job: FlowJob
    steps: tuple[StepPlan, ...]
    most_atoms: int
    spent_atoms: int


@dataclass(slots=True, kw_only=True)
class StepReport:
    """What became of one step; `state` is waiting, done, skipped, failed or left.

    A skipped one costs nothing, and `why_not` says what did not hold.
    """

    step: Step
    state: str = "waiting"
    jobs: int = 0
    done: int = 0
    tally: Tally = field(default_factory=Tally)
    problems: list[dict[str, Any]] = field(default_factory=list)
    why_not: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowStatement:
    """What all runs of a flow came to; `tally` sums every receipt, also of answers since replaced."""

    steps: tuple[StepReport, ...]
    outputs: Mapping[str, Any]
    tally: Tally
    uncertain_atoms: int
    out: Path
    receipts: Path
    halted_by: WattError | None
    interrupted: bool
    faults: tuple[Any, ...]

    @property
    def failed(self) -> int:
        """Steps that failed, with those that waited for them."""
        return sum(report.state not in ("done", "skipped") for report in self.steps)


def given_inputs(flow: Flow, given: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs of one run: the file's, and those given in their place.

    Raises:
        BadRequest: an unknown one, or one that has to be given is not.
    """
    unknown = [name for name in given if name not in flow.inputs]
    if unknown:
        known = ", ".join(flow.inputs) or "none"
        raise BadRequest(ErrorCode.INVALID_REQUEST, f"{flow.name} has no input {unknown[0]!r}, but {known}")
    found = {name: _fitting(name, given.get(name, value), value) for name, value in flow.inputs.items()}
    for name, value in found.items():
        if value in ("", []):
            raise BadRequest(
                ErrorCode.INVALID_REQUEST,
                f"{flow.name} needs its input {name!r}",
                hint=f"--input {name}=VALUE, or --input {name}=@FILE for a line an item",
            )
    return found


async def forecast(client: AsyncWattline, job: FlowJob) -> FlowPlan:
    """Prices what is left of a flow. Charges nothing, writes nothing.

    Raises:
        BadRequest: a request that no node would take.
        GatewayProblem: no node can do a step.
    """
    book = Workbook(job.state) if job.state.exists() else None
    try:
        values: dict[str, Any] = dict(job.inputs)
        plans: list[StepPlan] = []
        for step in job.flow.steps:
            why_not = _skipped_already(step, plans, values)
            if why_not is None:
                plan, values[step.id] = await _priced(client, job, step, values, book)
            else:
                plan = StepPlan(step=step, jobs=0, done=0, most_atoms=0, sellers=None, why_not=why_not)
            plans.append(plan)
        return FlowPlan(
            job=job,
            steps=tuple(plans),
            most_atoms=sum(plan.most_atoms for plan in plans),
            spent_atoms=book.committed_atoms() if book else 0,
        )
    finally:
        if book:
            book.close()


async def run(
    client: AsyncWattline,
    plan: FlowPlan,
    terms: Terms,
    *,
    stop: Callable[[], bool] = lambda: False,
    tell: Callable[[str, int], None] = lambda _step, _spent: None,
) -> FlowStatement:
    """Buys what is left of a flow, writes its outputs and receipts, and sums them up."""
    with Workbook(plan.job.state) as book:
        _check_kind(book)
        models = {_meant(each.step): each.sellers.model_id for each in plan.steps if each.sellers}
        book.say({"kind": "flow", "models": {**(book.about("models") or {}), **models}})
        purchases = Purchases(client, book, terms, stop=stop)
        await purchases.settle()
        running = _Running(purchases, plan, tell)
        async with anyio.create_task_group() as group:
            for each in plan.steps:
                group.start_soon(running.step, each)
        return _conclude(book, purchases, running, plan)


class _Running:
    """One run: outputs so far, and who waits for them."""

    def __init__(self, purchases: Purchases, plan: FlowPlan, tell: Callable[[str, int], None]) -> None:
        self._purchases, self._tell = purchases, tell
        self.values: dict[str, Any] = dict(plan.job.inputs)
        self.outputs: dict[str, Any] = {}
        self.reports = {each.step.id: StepReport(step=each.step) for each in plan.steps}
        self._ended = {each.step.id: anyio.Event() for each in plan.steps}

    async def step(self, plan: StepPlan) -> None:
        """Waits for what the step needs, then buys it."""
        step, report = plan.step, self.reports[plan.step.id]
        try:
            for need in step.needs:
                await self._ended[need].wait()
            report.why_not = self._why_not(step)
            if report.why_not is not None:
                report.state = "skipped"
                return
            if not step.needs <= self.outputs.keys():
                report.state = "left"
                return
            await self._run(plan, report)
        except BadRequest as error:
            # An answer has made a request that no node would take; the forecast could not know.
            report.state = "failed"
            report.problems.append({"job": step.id, "code": error.code.value, "message": error.detail})
        finally:
            self._ended[step.id].set()

    def _why_not(self, step: Step) -> str | None:
        skipped = [need for need in sorted(step.needs) if self.reports[need].state == "skipped"]
        if skipped:
            return _needs(skipped)
        complete = step.needs <= self.outputs.keys()
        return step.when.why_not(self.values) if step.when is not None and complete else None

    async def _run(self, plan: StepPlan, report: StepReport) -> None:
        step = plan.step
        items = step.items(self.values)
        asks = [step.recipe.ask(step.values(self.values, index, item)) for index, item in enumerate(items)]
        report.jobs = len(asks)
        found: dict[int, Bundle] = {}

        async def buy(index: int) -> None:
            unit = _unit(step, index, asks[index], plan.sellers)
            try:
                found[index] = await self._purchases.buy(unit)
            except Halted:
                return
            except WattError as error:
                charged = bool(getattr(error, "charged", False))
                told = {"code": error.code.value, "message": error.detail, "charged": charged}
                report.problems.append({"job": unit.name.unit, **told})
                return
            report.done += 1
            report.tally.add(found[index])
            self._tell(unit.name.unit, self._purchases.committed_atoms)

        async with anyio.create_task_group() as group:
            for index in range(len(asks)):
                group.start_soon(buy, index)
        if len(found) < len(asks):
            report.state = "failed" if report.problems else "left"
            return
        parts = [_outputs(found[index]) for index in range(len(asks))]
        self.outputs[step.id] = gathered(parts, items, step.recipe.task) if step.is_many else parts[0]
        self.values[step.id] = self.outputs[step.id]
        report.state = "done"


def _skipped_already(step: Step, plans: list[StepPlan], values: Mapping[str, Any]) -> str | None:
    """Why a step is skipped, where all that decides it is answered already."""
    needed = {plan.step.id: plan for plan in plans if plan.step.id in step.needs}
    skipped = sorted(name for name, plan in needed.items() if plan.why_not is not None)
    if skipped:
        return _needs(skipped)
    known = all(plan.done == plan.jobs for plan in needed.values())
    return step.when.why_not(values) if step.when is not None and known else None


def _needs(skipped: list[str]) -> str:
    return f"it needs {', '.join(skipped)}, which was skipped"


async def _priced(
    client: AsyncWattline, job: FlowJob, step: Step, values: Mapping[str, Any], book: Workbook | None
) -> tuple[StepPlan, dict[str, Any]]:
    """A step's price, and its outputs: the real ones where it is done, else made-up ones of likely size."""
    try:
        items = step.items(values)
        asks = [step.recipe.ask(step.values(values, index, item)) for index, item in enumerate(items)]
    except BadRequest as error:
        detail = error.detail if error.detail.startswith("step ") else f"step {step.id}: {error.detail}"
        raise BadRequest(error.code, detail) from error
    proofs = [book.proof(_name(step, index, ask)) if book else None for index, ask in enumerate(asks)]
    todo = [ask for ask, proof in zip(asks, proofs, strict=True) if proof is None]
    found = None
    if todo:
        kept = (book.about("models") or {}).get(_meant(step), "") if book else ""
        largest = max(todo, key=lambda ask: ask.payload(BLANK_MODEL).most_units_in)
        found = await sellers(client, pinned(largest, kept), job.node_ids)
    parts = [
        stand_in(ask.payload(BLANK_MODEL)) if proof is None else _outputs(Bundle.from_json(proof))
        for ask, proof in zip(asks, proofs, strict=True)
    ]
    plan = StepPlan(
        step=step,
        jobs=len(asks),
        done=len(asks) - len(todo),
        most_atoms=sum(found.ceilings(ask)[1] for ask in todo) if found else 0,
        sellers=found,
    )
    return plan, gathered(parts, items, step.recipe.task) if step.is_many else parts[0]


def _unit(step: Step, index: int, ask: Ask, found: Sellers | None) -> Unit:
    name = _name(step, index, ask)
    if found is None:
        # The forecast found every answer of this step; buying it gives the one that is there.
        return Unit(name=name, ask=ask, nodes=(), most_atoms=0)
    most = found.ceilings(ask)[1]
    return Unit(name=name, ask=pinned(ask, found.model_id), nodes=found.nodes, most_atoms=most)


def _name(step: Step, index: int, ask: Ask) -> Name:
    return Name(f"{step.id}[{index}]" if step.is_many else step.id, digest_of(ask))


def _meant(step: Step) -> str:
    """Names a model as a step asks for it: while a flow goes on, that means the same files."""
    return f"{step.recipe.task} {step.recipe.model}"


def _outputs(bundle: Bundle) -> dict[str, Any]:
    return outputs_of(parse_payload(bundle.payload), Answer(bundle.chunks))


def _conclude(book: Workbook, purchases: Purchases, running: _Running, plan: FlowPlan) -> FlowStatement:
    job, sums = plan.job, Tally()
    receipts = beside(job.out, "receipts.jsonl")
    write_lines(receipts, _counted(book, sums))
    told = {"flow": job.flow.name, "inputs": dict(job.inputs), "outputs": running.outputs}
    fresh = job.out.with_name(job.out.name + ".new")
    fresh.write_text(json.dumps(told, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    fresh.replace(job.out)
    return FlowStatement(
        steps=tuple(running.reports.values()),
        outputs=running.outputs,
        tally=sums,
        uncertain_atoms=book.unanswered_atoms(),
        out=job.out,
        receipts=receipts,
        halted_by=purchases.halted_by,
        interrupted=purchases.interrupted,
        faults=tuple(purchases.faults),
    )


def _counted(book: Workbook, sums: Tally) -> Iterator[dict[str, Any]]:
    for _, proof in book.proofs():
        sums.add(Bundle.from_json(proof))
        yield proof


def _check_kind(book: Workbook) -> None:
    if book.about("kind") not in (None, "flow"):
        raise BadRequest(
            ErrorCode.INVALID_REQUEST,
            f"{book.path} is the record of other work",
            hint="Name other outputs: --out",
        )


def _fitting(name: str, value: Any, default: Any) -> Any:
    """A value of the default's kind: one text where a list is wanted is a list of one."""
    if isinstance(default, list) and not isinstance(value, list):
        return [value]
    if isinstance(default, list) == isinstance(value, list):
        return value
    raise BadRequest(ErrorCode.INVALID_REQUEST, f"input {name} is one value, not a list")
