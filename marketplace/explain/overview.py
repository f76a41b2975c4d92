"""`/llms.txt`: what a gateway is, how to call it and what is on offer now, for a model to read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from marketplace.explain import errors
from marketplace.protocol.errors import SPECS, ErrorCode


@dataclass(frozen=True, slots=True, kw_only=True)
class OnOffer:
    """A model that can be bought now; prices are the cheapest offer's, as decimal text in the token."""

    name: str
    tasks: tuple[str, ...]
    context_tokens: int
    per_job: str
    in_per_million: str
    out_per_million: str
    nodes: int


_INTRO = """# Wattline gateway

> A market for inference that is paid per call in {symbol} out of an on-chain escrow. It speaks the OpenAI
> API. Prices are known before the call, every answer comes with a signed receipt, and a call is charged at
> most once.

## How to call it

- Base URL for OpenAI clients: this host with `/v1`. Send `Authorization: Bearer sk-watt-...`.
- `POST /v1/chat/completions` (also streamed), `POST /v1/embeddings`, and `POST /v1/classify`, `/v1/rerank`,
  `/v1/classify-image`.
- `POST /v1/quotes` with the same body tells the most a call can cost, before it is made, and charges nothing.
- `max_cost` in the body (decimal text in {symbol}) refuses whatever could cost more.
- `Idempotency-Key`: the same key with the same body is the same job, charged once, whatever retries.
- `usage.cost` and `usage.cost_details` say what was paid; `receipt` verifies offline.
- Errors are JSON with `code`, `charged`, `hint`, `retryable` and `doc_url`, where the code is explained.
- Money is set aside in sessions: `GET /v1/sessions?key=ADDRESS`. Without one, calls end with `no_session`.

## Models on offer
"""
_HEAD = (
    "| model | tasks | context | per job | per 1M tokens in | per 1M tokens out | nodes |",
    "| --- | --- | --- | --- | --- | --- | --- |",
)
_NONE = "None at the moment; nodes come and go."
_DOCS = """
## Docs

- [Errors](/docs/errors): every error code, each with its own page of why and what to do
- [OpenAPI schema](/openapi.json): every route and field
- [Routes](/docs): the same for people
- [Models](/v1/models): what is on offer, as JSON
- [Nodes](/v1/nodes): who serves it
- [Chain](/v1/chain): the contracts that hold the money
- [Everything in one file](/llms-full.txt): this page and every error page
"""


def short(models: Sequence[OnOffer], symbol: str) -> str:
    """The page; prices are in `symbol`."""
    rows = [*_HEAD, *(_row(model) for model in models)] if models else [_NONE]
    return _INTRO.format(symbol=symbol) + "\n" + "\n".join(rows) + "\n" + _DOCS


def full(models: Sequence[OnOffer], symbol: str) -> str:
    """The page, and every page it refers to that is prose."""
    pages = [errors.page(code).replace("\n## ", "\n#### ").replace("# ", "### ", 1) for code in ErrorCode]
    return short(models, symbol) + "\n## Error codes\n\n" + "\n".join(pages)


def error_list() -> str:
    """Every error code, with a link to its page."""
    rows = [
        f"| [{code}]({errors.path(code)}) | {spec.status} | {spec.title} | {spec.hint} |"
        for code, spec in SPECS.items()
    ]
    head = "# Errors\n\n| code | HTTP | what | what helps |\n| --- | --- | --- | --- |\n"
    return head + "\n".join(rows) + "\n"


def _row(model: OnOffer) -> str:
    cells = (
        # A name is a node's word: it must not break out of its cell.
        model.name.replace("|", " ").replace("\n", " "),
        ", ".join(model.tasks),
        str(model.context_tokens),
        model.per_job,
        model.in_per_million,
        model.out_per_million,
        str(model.nodes),
    )
    return "| " + " | ".join(cells) + " |"
