"""Before anything is ordered: what a call wants, what it may cost, and whether the user has to be asked."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, Literal

from mcp.server.mcpserver import AcceptedElicitation, Context, Elicit, ElicitationResult, Resolve
from mcp_types.version import is_version_at_least
from pydantic import BaseModel, Field

from marketplace.client.quotes import Quote
from marketplace.mcp.clerk import Caller, Clerk, Visit
from marketplace.mcp.limits import names_of
from marketplace.mcp.shelf import Kept
from marketplace.mcp.shop import Limit, Wish, wish_of
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.hexes import to_hex

Call = Context[Clerk, Any]
# From this revision on a question travels in the answer to the call, and the call comes again with the reply.
_ASKS_BY_ANSWERING: Final = "2026-07-28"


class Turn(BaseModel):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class Allow(BaseModel):
    """The user's word on one job that is above the limits."""

    allow: bool = Field(description="Let this one job cost that much.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A purchase that may be made once `question`, if there is one, is answered with yes.

    `kept` is the offer it takes, `model` what the agent calls the model.
    """

    visit: Visit
    model: str
    wish: Wish
    limit: Limit
    question: str = ""
    kept: Kept | None = None


async def visit_of(call: Call) -> Visit:
    """Who serves this call. May raise `WattError`."""
    clerk: Clerk = call.request_context.lifespan_context
    client = getattr(call.request_context.request, "client", None)
    address = (str(client[0]), int(client[1])) if client else None
    return await clerk.serve(Caller(headers=call.headers or {}, address=address))


async def check_model(visit: Visit, model: str) -> None:
    """Whether the user lets the agent use a model, by any of its names.

    Raises:
        BadRequest: no.
    """
    if visit.limits.permits(model):
        return
    rows = await visit.shop.models()
    same = [row for row in rows if model == row.get("model_id") or model in names_of(row)]
    if not any(visit.limits.permits(*names_of(row)) for row in same):
        raise BadRequest(
            ErrorCode.UNKNOWN_MODEL,
            f"{model[:80]} is none of the models that may be used here: {visit.limits.models}",
            hint="search_models() lists those that may.",
        )


async def planned(
    call: Call,
    *,
    model: str | None,
    offer: str | None,
    prompt: str | None,
    messages: Sequence[Turn] | None,
    input: str | Sequence[str] | None,
    task: str | None,
    fields: dict[str, Any] | None,
    max_tokens: int | None,
    max_cost: str | None,
) -> Plan:
    """What a call of `run` would buy, and at most for how much. Charges nothing. May raise `WattError`."""
    visit = await visit_of(call)
    asked = None if max_cost is None else visit.shop.currency.atoms(max_cost)
    if offer is not None:
        if any(given is not None for given in (model, prompt, messages, input, task, fields, max_tokens)):
            raise BadRequest(
                ErrorCode.INVALID_REQUEST, "An offer says already what is asked.", hint="Only add max_cost."
            )
        return _of_offer(visit, offer, asked)
    if model is None:
        raise BadRequest(ErrorCode.INVALID_REQUEST, "Give a model or an offer.", hint="search_models()")
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
    return _of_wish(visit, wish, await visit.shop.quotes(wish), asked)


async def permitted(call: Call, plan: Annotated[Plan, Resolve(planned)]) -> Elicit[Allow] | None:
    """The question to the user, where there is one.

    Raises:
        BadRequest: this client cannot ask its user, so the answer is no.
    """
    if not plan.question:
        return None
    if not _can_ask(call):
        raise BadRequest(
            ErrorCode.PRICE_ABOVE_MAX,
            f"{plan.question} This client cannot ask its user, so the answer is no.",
            hint="Name a lower max_cost, or let the user raise the limit: --per-job and --budget,"
            " or X-Watt-Per-Job and X-Watt-Budget.",
        )
    return Elicit(f"{plan.question} Allow once?", Allow)


Planned = Annotated[Plan, Resolve(planned)]
Permitted = Annotated[ElicitationResult[Allow], Resolve(permitted)]


def check_permission(plan: Plan, permission: ElicitationResult[Allow]) -> None:
    """Goes on where nobody had to be asked, or the user said yes.

    Raises:
        BadRequest: the user said no, or nothing.
    """
    if not plan.question:
        return
    if isinstance(permission, AcceptedElicitation) and permission.data.allow:
        return
    raise BadRequest(
        ErrorCode.PRICE_ABOVE_MAX,
        f"{plan.question} The user did not allow it.",
        hint="Name a lower max_cost, or shorten it: max_tokens.",
    )


def turns(messages: Sequence[Turn] | None) -> list[dict[str, str]] | None:
    """Messages as the API takes them."""
    return None if messages is None else [turn.model_dump() for turn in messages]


def _of_offer(visit: Visit, name: str, asked: int | None) -> Plan:
    kept = visit.shelf.take(visit.owner, name, visit.shop.now_ms())
    ceiling = kept.quote.ceiling_atoms
    if asked is not None and asked < ceiling:
        raise _too_dear(visit, ceiling, asked)
    limit = Limit(most_atoms=ceiling, node_id=kept.quote.node_id, once=name)
    wish = replace(kept.wish, model_id=to_hex(kept.quote.offer.model_id))
    question = "" if kept.bought else _question(visit, ceiling)
    return Plan(visit=visit, model=kept.wish.model, wish=wish, limit=limit, question=question, kept=kept)


def _of_wish(visit: Visit, wish: Wish, quotes: list[Quote], asked: int | None) -> Plan:
    able = [quote.ceiling_atoms for quote in quotes if quote.eligible]
    if not able:
        raise _nobody(quotes)
    if asked is not None and asked < min(able):
        raise _too_dear(visit, min(able), asked)
    worth = able[0] if asked is None else asked
    question, cap = _question(visit, worth), visit.limits.cap_atoms
    if asked is None and not question:
        # Another of these nodes may take over, as long as nobody has to be asked for it.
        worth = max(atoms for atoms in able if cap is None or atoms <= cap)
    limit = Limit(most_atoms=worth, once=secrets.token_hex(16))
    return Plan(visit=visit, model=wish.model, wish=wish, limit=limit, question=question)


def _nobody(quotes: list[Quote]) -> BadRequest:
    """Why no node can take it: the reason of all, else that each has one."""
    reasons = sorted({quote.why_not for quote in quotes if quote.why_not})
    known = [ErrorCode(reason) for reason in reasons if reason in ErrorCode.__members__.values()]
    code = known[0] if len(reasons) == len(known) == 1 else ErrorCode.NO_NODE
    why = f" ({', '.join(reasons)})" if reasons else ""
    return BadRequest(code, f"No node can take this now{why}.")


def _question(visit: Visit, atoms: int) -> str:
    cap, money = visit.limits.cap_atoms, visit.shop.currency
    if cap is None or atoms <= cap:
        return ""
    return f"This job may cost {money.show(atoms)}; your cap is {money.bare(cap)}."


def _too_dear(visit: Visit, ceiling: int, most: int) -> BadRequest:
    money = visit.shop.currency
    return BadRequest(
        ErrorCode.PRICE_ABOVE_MAX,
        f"No node will do this for {money.show(most)}; the cheapest asks up to {money.bare(ceiling)}.",
        hint=f"max_cost {money.bare(ceiling)}, or shorten it: max_tokens.",
    )


def _can_ask(call: Call) -> bool:
    """Whether this client shows forms to its user, and a question would reach it."""
    elicitation = call.client_capabilities.elicitation if call.client_capabilities else None
    if elicitation is None or (elicitation.form is None and elicitation.url is not None):
        return False
    version = call.protocol_version or ""
    return is_version_at_least(version, _ASKS_BY_ANSWERING) or call.session.can_send_request
