"""A file of inputs read, checked and priced, row by row, before anything of it is bought."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from marketplace.client.asks import Ask
from marketplace.client.packs import AskedRow, Pack, packed
from marketplace.client.recipes import Recipe, digest_of, pinned
from marketplace.client.rows import BadRow, Rows, read_rows
from marketplace.client.sellers import Sellers, sellers
from marketplace.client.statement import beside
from marketplace.client.workbook import Name, Workbook
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.payloads import BLANK_MODEL, ChatPayload, ImagesPayload, Payload, canonical_json

if TYPE_CHECKING:
    from marketplace.client.aio import AsyncWattline

_SHOWN: Final = 10
# Text has about 4 bytes a token. What would need twice as many is not sent; a node decides about the rest.
_MOST_BYTES_A_TOKEN: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class MapJob:
    """What is to be done.

    Attributes:
        node_ids: the only nodes wanted; none: all that can.
        skip_bad: leave rows out that cannot be asked, instead of refusing the file.
    """

    source: Path
    out: Path
    recipe: Recipe
    node_ids: tuple[int, ...] = ()
    skip_bad: bool = False

    @property
    def state(self) -> Path:
        """Where the record of what was bought is kept."""
        return beside(self.out, "state.db")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A job read, checked and priced; nothing of it was charged.

    Attributes:
        packs: the jobs that answer all of `asked`; `done` are those that have their answer.
        most_atoms: what the rows that are left cost at most, wherever they are done.
        least_atoms: the same, were all done at the cheapest node.
        spent_atoms: what earlier runs paid or may still have to.
    """

    job: MapJob
    digest: str
    asked: tuple[AskedRow, ...]
    packs: tuple[Pack, ...]
    bad: tuple[BadRow, ...]
    done: frozenset[Name]
    sellers: Sellers
    most_atoms: int
    least_atoms: int
    spent_atoms: int

    @property
    def left(self) -> int:
        """Rows without an answer."""
        return sum(len(pack.rows) for pack in self.packs if pack.name not in self.done)


def kept_model(out: Path) -> str | None:
    """The model that the job behind these results began with; None where none began."""
    state = beside(out, "state.db")
    if not state.exists():
        return None
    with Workbook(state) as book:
        recipe = book.about("recipe")
    return str(recipe["model"]) if recipe else None


async def forecast(client: AsyncWattline, job: MapJob) -> Plan:
    """Reads and checks every row and prices what is left to do. Charges nothing, writes nothing.

    Raises:
        BadRequest: rows that cannot be asked, with their lines; or a record of another job stands in the way.
        GatewayProblem: no node can do it.
    """
    rows = read_rows(job.source)
    asked, bad = _asked(job, rows)
    if not asked:
        raise _unfit(bad, job)
    before = _before(job, rows.digest)
    todo = [row for pack in _left(packed(asked, before.standing), before) for row in pack.rows]
    found = await _sellers(client, job, todo, before.model_id)
    context = await _context_tokens(client, found)
    long = {each.row.number: why for each in todo if (why := _too_long(each.ask, context))}
    bad += [
        BadRow(number=each.row.number, line=each.row.line, why=long[each.row.number])
        for each in todo
        if each.row.number in long
    ]
    if bad and not job.skip_bad:
        raise _unfit(bad, job)
    fit = tuple(each for each in asked if each.row.number not in long)
    packs = packed(fit, before.standing)
    prices = [found.ceilings(pack.ask) for pack in _left(packs, before)]
    return Plan(
        job=job,
        digest=rows.digest,
        asked=fit,
        packs=packs,
        bad=tuple(sorted(bad, key=lambda row: row.number)),
        done=before.done,
        sellers=found,
        most_atoms=sum(most for _, most in prices),
        least_atoms=sum(least for least, _ in prices),
        spent_atoms=before.spent_atoms,
    )


def _asked(job: MapJob, rows: Rows) -> tuple[list[AskedRow], list[BadRow]]:
    job.recipe.check_fields()
    asked, bad = [], list(rows.bad)
    for row in rows.good:
        try:
            ask = job.recipe.ask(row.values)
            name = Name(str(row.number), digest_of(ask))
        except BadRequest as error:
            bad.append(BadRow(number=row.number, line=row.line, why=error.detail))
        else:
            asked.append(AskedRow(row=row, ask=ask, name=name))
    return asked, bad


def _unfit(bad: list[BadRow], job: MapJob) -> BadRequest:
    first = sorted(bad, key=lambda row: row.line)[:_SHOWN]
    told = "; ".join(f"line {row.line}: {row.why}" for row in first)
    more = f"; and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
    return BadRequest(
        ErrorCode.INVALID_REQUEST,
        f"{len(bad)} rows of {job.source} cannot be asked: {told}{more}.",
        hint="Correct them, or leave them out: --skip-bad. Nothing was charged.",
        bad_rows=len(bad),
    )


async def _context_tokens(client: AsyncWattline, found: Sellers) -> int:
    """How much the model reads; 0 where the market does not say."""
    rows = await client.models()
    told = [int(row.get("context_tokens") or 0) for row in rows if row.get("model_id") == found.model_id]
    return max(told, default=0)


def _too_long(ask: Ask, context_tokens: int) -> str:
    """Why no node would read this; nothing where one may."""
    size = _longest(ask.payload(BLANK_MODEL))
    if not context_tokens or size <= context_tokens * _MOST_BYTES_A_TOKEN:
        return ""
    return f"too long: {size} bytes for a model that reads {context_tokens} tokens"


def _longest(payload: Payload) -> int:
    """Bytes of the longest text that is read at once."""
    if isinstance(payload, ImagesPayload):
        return 0
    if isinstance(payload, ChatPayload):
        return sum(len(turn.content.encode()) for turn in payload.messages)
    values = payload.model_dump().values()
    texts = [text for value in values for text in (value if isinstance(value, tuple) else [value])]
    return max((len(text.encode()) for text in texts if isinstance(text, str)), default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Before:
    """What earlier runs did, spent and settled on."""

    done: frozenset[Name] = frozenset()
    standing: tuple[Name, ...] = ()
    spent_atoms: int = 0
    model_id: str = ""


def _left(packs: Sequence[Pack], before: _Before) -> list[Pack]:
    return [pack for pack in packs if pack.name not in before.done]


def _before(job: MapJob, digest: str) -> _Before:
    """Raises `BadRequest` where they were of another job."""
    if not job.state.exists():
        return _Before()
    with Workbook(job.state) as book:
        check_same_job(book, job, digest)
        return _Before(
            done=frozenset(book.done()),
            standing=book.standing(),
            spent_atoms=book.committed_atoms(),
            model_id=book.about("model_id") or "",
        )


async def _sellers(client: AsyncWattline, job: MapJob, todo: list[AskedRow], model_id: str) -> Sellers:
    """Who can do the largest row, of the very model the job began with."""
    if not todo:
        return Sellers(model=job.recipe.model, model_id=model_id, offers=())
    largest = max(todo, key=lambda each: each.ask.payload(BLANK_MODEL).most_units_in)
    return await sellers(client, pinned(largest.ask, model_id), job.node_ids)


def check_same_job(book: Workbook, job: MapJob, digest: str) -> None:
    """Raises `BadRequest` where the record is of other rows or other options."""
    recipe, file = book.about("recipe"), book.about("file")
    if book.about("kind") not in (None, "map"):
        raise BadRequest(
            ErrorCode.INVALID_REQUEST, f"{job.state} is the record of a flow.", hint="Name others with --out."
        )
    if recipe is None:
        return
    same_recipe = canonical_json(recipe) == canonical_json(job.recipe.to_json())
    changed = "rows" if file != digest else "" if same_recipe else "options"
    if changed:
        raise BadRequest(
            ErrorCode.INVALID_REQUEST,
            f"{job.state} is the record of a job with other {changed}; what it bought is not this job's.",
            hint="Name other results with --out, or remove the record to begin anew.",
        )
