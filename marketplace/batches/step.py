"""Load → check → keep: files of requests and the batches made of them. One transaction each."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from marketplace.batches import rules
from marketplace.dispatch.terms import Once
from marketplace.funding import step as funding
from marketplace.funding.rules import Price
from marketplace.openai import batches as shapes
from marketplace.openai import money
from marketplace.openai.batches import OVER, BatchStatus
from marketplace.protocol.errors import BadRequest, ErrorCode, WattError
from marketplace.quoting.rules import Need, Quote, need_of
from marketplace.store import aliases, batches, files, offers
from marketplace.store.batch_tables import BatchLineRow, BatchRow, FileRow
from marketplace.store.batches import LineState
from marketplace.store.offers import Listing
from marketplace.store.tables import Tx

# Stock clients give up waiting after ten minutes, then send the call again.
_RETRY_MS: Final = 900_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What this gateway takes in.

    Attributes:
        most_kept_bytes: of all files of one key together.
        most_unfinished: batches of one key at a time.
    """

    most_file_bytes: int = 32 << 20
    most_line_bytes: int = 1 << 20
    most_lines: int = 10_000
    most_kept_bytes: int = 256 << 20
    most_unfinished: int = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A batch as it was asked for.

    Attributes:
        key: address of the key that pays.
        labels: the caller's own, given back as they are.
        once: what tells the call from its repetition, which gives the same batch.
        keep_ms: how long its results are kept once it has ended.
    """

    key: str
    input_file_id: str
    endpoint: str
    labels: Mapping[str, str]
    max_cost_atoms: int | None
    trace_id: str
    once: Once
    keep_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One request of a batch that is not kept yet: what nodes ask for it, or why it cannot be run."""

    number: int
    custom_id: str
    model: str
    need: Need | None = None
    prices: Sequence[Price] = ()
    problem: WattError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """Fresh ids of a batch and of the files it will fill."""

    batch_id: str
    output_file_id: str
    error_file_id: str


def keep_file(tx: Tx, row: FileRow, lines: Iterable[bytes], most_kept_bytes: int) -> FileRow:
    """Keeps a file whose lines were read and found good. Raises `BadRequest` when its key keeps too much."""
    _check_kept(tx, row.key, row.size_bytes, most_kept_bytes)
    files.add(tx, row, enumerate(lines, 1))
    return row


def own_file(tx: Tx, file_id: str, key: str) -> FileRow:
    """A key's own file. Raises `BadRequest`."""
    row = files.find(tx, file_id, key)
    if row is None:
        raise BadRequest(ErrorCode.UNKNOWN_FILE)
    return row


def remove_file(tx: Tx, file_id: str, key: str) -> None:
    """Forgets a file that no unfinished batch reads. Raises `BadRequest`."""
    own_file(tx, file_id, key)
    reader = batches.reading(tx, file_id)
    if reader is not None:
        raise BadRequest(ErrorCode.FILE_IN_USE, f"{reader.batch_id} reads it", batch_id=reader.batch_id)
    files.remove(tx, file_id)


def expire_files(tx: Tx, now_ms: int, limit: int) -> int:
    """Forgets files whose time is over, so many at most; gives how many. Idempotent."""
    due = files.due(tx, now_ms, limit)
    for file_id in due:
        files.remove(tx, file_id)
    return len(due)


def own_batch(tx: Tx, batch_id: str, key: str) -> BatchRow:
    """A key's own batch. Raises `BadRequest`."""
    row = batches.find(tx, batch_id, key)
    if row is None:
        raise BadRequest(ErrorCode.UNKNOWN_BATCH)
    return row


def known_batch(tx: Tx, wish: Wish, now_ms: int) -> BatchRow | None:
    """The batch this call has already made. Raises `BadRequest` when its name stands for another call."""
    once = wish.once
    if once.name is not None:
        row = batches.find_by_idempotency(tx, once.name)
        if row is not None and row.fingerprint != once.fingerprint:
            raise BadRequest(ErrorCode.IDEMPOTENCY_MISMATCH, batch_id=row.batch_id)
        return row
    if once.retries == 0:
        return None
    return batches.find_repeated(tx, wish.key, once.fingerprint, now_ms - _RETRY_MS)


def input_of(tx: Tx, wish: Wish) -> FileRow:
    """The file a batch shall run. Raises `BadRequest`."""
    row = own_file(tx, wish.input_file_id, wish.key)
    if row.url != wish.endpoint:
        detail = f"the lines of {row.file_id} are for {row.url}" if row.url else "it is no file of requests"
        raise BadRequest(ErrorCode.INVALID_REQUEST, detail, param="endpoint" if row.url else "input_file_id")
    return row


def read_line(number: int, raw: bytes, decimals: int) -> Line:
    """A line of an input file: what it needs of a node, or why it cannot be run."""
    entry = shapes.read_entry(number, raw)
    try:
        call = shapes.call_of(entry)
        limit = None if call.max_cost is None else money.to_atoms(call.max_cost, decimals, "max_cost")
        need = need_of(shapes.payload_of(call, 0), limit, call.node)
    except BadRequest as problem:
        return Line(number=number, custom_id=entry.custom_id, model="", problem=problem)
    return Line(number=number, custom_id=entry.custom_id, model=call.model, need=need)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """What a model's name means here, and every offer for it, also of nodes that are away."""

    model: str
    listings: Sequence[Listing]


def offered(tx: Tx, models: Iterable[str]) -> dict[str, Offered]:
    """What is on offer for each of these models, by what callers call them."""
    means = {model: aliases.meaning(tx, model) for model in models}
    return {
        model: Offered(model=meant, listings=offers.listings(tx, meant)) for model, meant in means.items()
    }


def price_of(quote: Quote[Listing]) -> Price:
    """What funding needs to know of a quote."""
    listing = quote.listing
    return Price(node_id=listing.node_id, epoch=listing.epoch, ceiling_atoms=quote.ceiling_atoms)


def accept(
    tx: Tx, wish: Wish, lines: Sequence[Line], names: Names, limits: Limits, *, now_ms: int, deadline_ms: int
) -> tuple[BatchRow, bool]:
    """Keeps a batch that its key can pay; False with one that was kept before.

    Raises:
        BadRequest: the sessions cannot carry it, it may cost too much, or the key has too much going on.
    """
    known = known_batch(tx, wish, now_ms)
    if known is not None:
        return known, False
    if len(batches.unfinished(tx, wish.key, limits.most_unfinished)) == limits.most_unfinished:
        detail = f"{limits.most_unfinished} batches of this key are not finished"
        raise BadRequest(ErrorCode.RATE_LIMITED, detail)
    _check_kept(tx, wish.key, 0, limits.most_kept_bytes)
    wanted = {line.number: line.prices for line in lines if line.problem is None}
    nodes = sorted({price.node_id for prices in wanted.values() for price in prices})
    purses = funding.purses(tx, wish.key, nodes)
    shares = rules.share_out(wanted, purses, batches.promised(tx, wish.key), deadline_ms)
    ceiling = rules.total(shares)
    rules.check_limit(ceiling, wish.max_cost_atoms)
    batch = _batch_row(wish, names, lines, ceiling, now_ms)
    batches.add(tx, batch, (_line_row(names.batch_id, line, shares.get(line.number)) for line in lines))
    broken = ((line.number, _refused(names.batch_id, line)) for line in lines if line.problem)
    files.add_lines(tx, names.error_file_id, broken)
    return batch, True


def cancel(tx: Tx, batch_id: str, key: str, now_ms: int) -> BatchRow:
    """Nothing more of it is placed; one that is over stays as it is. Raises `BadRequest`, `LostRace`."""
    batch = own_batch(tx, batch_id, key)
    if batch.status in (BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS):
        ending = BatchStatus.CANCELLED.value
        batches.move(tx, batch, BatchStatus.CANCELLING, ending=ending, cancelling_at_ms=now_ms)
    return batch


def finish(tx: Tx, batch_id: str, now_ms: int) -> BatchRow:
    """Shows the files a batch has filled, and ends it. Idempotent. Raises `LostRace`."""
    batch = batches.get(tx, batch_id)
    if batch.status in OVER:
        return batch
    for file_id, what in ((batch.output_file_id, "output"), (batch.error_file_id, "errors")):
        size = files.size_bytes(tx, file_id)
        if size:
            files.add(tx, _result_row(batch, file_id, what, size, now_ms))
    # Its jobs hold the same answers: a record that they were deleted must be true of both.
    batches.keep_jobs(tx, batch_id, now_ms + batch.keep_ms)
    after = BatchStatus(batch.ending or BatchStatus.COMPLETED)
    batches.move(tx, batch, after, ended_at_ms=now_ms, problem="")
    return batch


def _check_kept(tx: Tx, key: str, more: int, most: int) -> None:
    kept = files.kept_bytes(tx, key)
    if kept + more > most:
        detail = f"the files of this key have {kept} bytes of {most}: delete some, DELETE /v1/files/…"
        raise BadRequest(ErrorCode.BODY_TOO_LARGE, detail)


def _batch_row(wish: Wish, names: Names, lines: Sequence[Line], ceiling: int, now_ms: int) -> BatchRow:
    return BatchRow(
        batch_id=names.batch_id,
        key=wish.key,
        keep_ms=wish.keep_ms,
        endpoint=wish.endpoint,
        input_file_id=wish.input_file_id,
        output_file_id=names.output_file_id,
        error_file_id=names.error_file_id,
        labels=json.dumps(dict(wish.labels)),
        trace_id=wish.trace_id,
        idempotency=wish.once.name,
        fingerprint=wish.once.fingerprint,
        status=BatchStatus.VALIDATING.value,
        total=len(lines),
        failed=sum(line.problem is not None for line in lines),
        max_cost_atoms=wish.max_cost_atoms,
        ceiling_atoms=ceiling,
        created_at_ms=now_ms,
        expires_at_ms=now_ms + rules.WINDOW_MS,
    )


def _line_row(batch_id: str, line: Line, share: rules.Share | None) -> BatchLineRow:
    return BatchLineRow(
        batch_id=batch_id,
        number=line.number,
        custom_id=line.custom_id,
        model=line.model,
        state=(LineState.WAITING if share else LineState.FAILED).value,
        session_id=share.session_id if share else "",
        ceiling_atoms=share.ceiling_atoms if share else 0,
    )


def _refused(batch_id: str, line: Line) -> bytes:
    problem = line.problem or BadRequest(ErrorCode.INVALID_REQUEST)
    return shapes.refused(rules.line_id(batch_id, line.number), line.custom_id, problem)


def _result_row(batch: BatchRow, file_id: str, what: str, size_bytes: int, now_ms: int) -> FileRow:
    return FileRow(
        file_id=file_id,
        key=batch.key,
        purpose="batch_output",
        filename=f"{batch.batch_id}_{what}.jsonl",
        size_bytes=size_bytes,
        created_at_ms=now_ms,
        expires_at_ms=now_ms + batch.keep_ms,
    )
