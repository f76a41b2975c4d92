"""The six tools. Whoever serves a call, its words, answers and errors are the same."""

from __future__ import annotations

import inspect
from typing import Annotated, Any, Final

import anyio
from mcp.server.mcpserver import MCPServer
from mcp_types import ToolAnnotations
from pydantic import Field

from marketplace.client.problems import GatewayTrouble
from marketplace.mcp import answers
from marketplace.mcp.clerk import Clerk
from marketplace.mcp.limits import names_of
from marketplace.mcp.plan import (
    Call,
    Permitted,
    Plan,
    Planned,
    Turn,
    check_model,
    check_permission,
    turns,
    visit_of,
)
from marketplace.mcp.shelf import Kept
from marketplace.mcp.shop import STEPS, Bought, Step, wish_of
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.payloads import MAX_OUTPUT_TOKENS

ModelName = Annotated[
    str, Field(min_length=1, max_length=128, description="A name, name@version or 0x… id of search_models.")
]
Prompt = Annotated[str | None, Field(description="Text to answer; the same as one user message.")]
Messages = Annotated[list[Turn] | None, Field(min_length=1, description="A conversation to continue.")]
Input = Annotated[str | list[str] | None, Field(description="Texts to embed.")]
Task = Annotated[str | None, Field(description="With fields: any other task, such as classify or rerank.")]
Fields = Annotated[dict[str, Any] | None, Field(description="With task: the fields of its request.")]
MaxTokens = Annotated[
    int | None, Field(ge=1, le=MAX_OUTPUT_TOKENS, description="Longest answer; 256 unless told.")
]
MaxCost = Annotated[
    str | None,
    Field(description="Most it may cost, in token units as text: '0.0003'. Above the cap the user is asked."),
]
Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,80}$")]
_READS: Final = ToolAnnotations(read_only_hint=True, open_world_hint=True)
_SPENDS: Final = ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=True)


def register(server: MCPServer[Clerk]) -> None:
    """Adds the tools to a server."""
    for tool in (search_models, quote, job, verify_receipt, budget):
        server.add_tool(tool, description=inspect.getdoc(tool), annotations=_READS)
    server.add_tool(run, description=inspect.getdoc(run), annotations=_SPENDS)


async def search_models(
    call: Call,
    query: Annotated[str | None, Field(description="Words that its names or tasks contain.")] = None,
    task: Annotated[str | None, Field(description="chat, embed, classify, rerank, …")] = None,
) -> answers.Models:
    """List the models on offer with their cheapest prices."""
    visit = await visit_of(call)
    rows = [row for row in await visit.shop.models() if visit.limits.permits(*names_of(row))]
    words = (query or "").lower().split()
    found = [
        model
        for model in map(answers.model_of, rows)
        if (task is None or task in model.tasks) and all(word in _said(model) for word in words)
    ]
    return answers.Models(models=found, currency=visit.shop.currency.symbol)


async def quote(
    call: Call,
    *,
    model: ModelName,
    prompt: Prompt = None,
    messages: Messages = None,
    input: Input = None,
    task: Task = None,
    fields: Fields = None,
    max_tokens: MaxTokens = None,
) -> answers.Offers:
    """Price a request before buying it: offers of the nodes, best first, each with the most it can cost.

    Charges nothing. Hand an offer's id to `run` to take it; an offer is good for one purchase.
    """
    visit = await visit_of(call)
    wish = wish_of(
        model=model,
        prompt=prompt,
        messages=turns(messages),
        texts=input,
        task=task,
        fields=fields,
        max_tokens=max_tokens,
    )
    await check_model(visit, model)
    quotes = await visit.shop.quotes(wish)
    if not quotes:
        raise BadRequest(ErrorCode.UNKNOWN_MODEL, f"nobody offers {model!r}", hint="search_models()")
    able = [item for item in quotes if item.eligible]
    named = dict(zip(map(id, able), visit.shelf.put(visit.owner, wish, able), strict=True))
    money, now_ms = visit.shop.currency, visit.shop.now_ms()
    return answers.Offers(
        model=model,
        currency=money.symbol,
        units_in_ceiling=quotes[0].units_in_ceiling,
        units_out_ceiling=quotes[0].units_out_ceiling,
        offers=[answers.offer_of(named.get(id(item)), item, money, now_ms) for item in quotes],
    )


async def run(
    call: Call,
    *,
    plan: Planned,
    permission: Permitted,
    model: ModelName | None = None,
    offer: Annotated[str | None, Field(description="Of `quote`, in place of all but max_cost.")] = None,
    prompt: Prompt = None,
    messages: Messages = None,
    input: Input = None,
    task: Task = None,
    fields: Fields = None,
    max_tokens: MaxTokens = None,
    max_cost: MaxCost = None,
) -> answers.Ran:
    """Have a request done and pay for it: a model and what it shall do, or an offer of `quote`.

    Never costs more than the ceiling it was quoted at. A failure costs nothing. Taking the same offer again
    gives the same answer and charges nothing more. Above the user's limits the user is asked first.
    """
    check_permission(plan, permission)
    bought = await (_buy(call, plan) if plan.kept is None else _take(call, plan, plan.kept))
    return answers.ran_of(bought, plan.model, plan.visit.shop.currency)


async def job(
    call: Call, id: Annotated[Id, Field(description="As `run` or an error named it.")]
) -> answers.Job:
    """Show where a job stands, what it cost and what it gave, also after a call was cut off."""
    visit = await visit_of(call)
    return answers.job_of(await visit.shop.job(id), visit.shop.currency)


async def verify_receipt(
    call: Call,
    id: Annotated[Id | None, Field(description="A receipt of `run` or `job`.")] = None,
    bundle: Annotated[dict[str, Any] | None, Field(description="Or the whole bundle of a receipt.")] = None,
) -> answers.Verified:
    """Check a receipt step by step: signatures, hashes, price, and on the chain where it can be asked."""
    visit = await visit_of(call)
    if (id is None) == (bundle is None):
        raise BadRequest(
            ErrorCode.INVALID_REQUEST, "Give an id or a bundle.", hint="The receipt of run() is an id."
        )
    data = bundle if bundle is not None else await visit.shop.receipt(str(id))
    return answers.verified_of(await visit.shop.checks(data))


async def budget(call: Call) -> answers.Budget:
    """Show what can still be spent, in all and per job, and for how long."""
    visit = await visit_of(call)
    purse = await visit.shop.purse()
    return answers.budget_of(purse, visit.limits, visit.shop.currency, visit.shop.now_ms())


def _said(model: answers.Model) -> str:
    """Everything a word may be looked for in."""
    return " ".join([model.model, model.model_id, *model.aliases, *model.tasks]).lower()


async def _take(call: Call, plan: Plan, kept: Kept) -> Bought:
    """What an offer brought, bought now or before.

    Raises:
        BadRequest: it was ordered before, and may yet be charged.
    """
    async with kept.lock:
        if kept.bought is None and kept.doubtful is not None:
            told = f"job({kept.doubtful!r})" if kept.doubtful else "Its job"
            raise BadRequest(
                ErrorCode.ORDER_REPLAYED,
                "This offer was ordered before, and what became of that is not known here.",
                hint=f"{told} tells; if it brought nothing, ask for a fresh offer: quote().",
                job_id=kept.doubtful,
            )
        if kept.bought is None:
            kept.bought = await _buy(call, plan)
        return kept.bought


async def _buy(call: Call, plan: Plan) -> Bought:
    reporter = _Reporter(call)
    visit, most = plan.visit, plan.limit.most_atoms
    with visit.limits.holding(most, allowed=bool(plan.question)) as held:
        try:
            bought = await visit.shop.buy(plan.wish, plan.limit, reporter.told)
        except (GatewayTrouble, anyio.get_cancelled_exc_class()) as error:
            if not reporter.ordered:
                held.cost_atoms = 0
            elif plan.kept is not None:
                plan.kept.doubtful = reporter.job_id
            if reporter.ordered and isinstance(error, GatewayTrouble):
                # Who asks for the job later can be told.
                error.values.update({"ordered": True, "job_id": reporter.job_id})
            raise
        held.cost_atoms = bought.cost_atoms
    await reporter.told(Step.DELIVERED, bought.job_id)
    return bought


class _Reporter:
    """Tells a client how far its job is; never a step back, as when a second node takes over."""

    def __init__(self, call: Call) -> None:
        self.job_id = ""
        self._call, self._step = call, 0

    @property
    def ordered(self) -> bool:
        """Whether an order may be on its way."""
        return self._step >= Step.ORDERED

    async def told(self, step: Step, job_id: str) -> None:
        """One step of the job."""
        self.job_id = job_id or self.job_id
        if step <= self._step:
            return
        self._step = step
        await self._call.report_progress(step, STEPS, step.name.lower())
