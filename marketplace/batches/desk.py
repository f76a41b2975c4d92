"""Where files and batches are taken in: reads lines a few at a time, and never blocks the loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO

from marketplace.batches import rules, step
from marketplace.batches.step import Limits, Line, Names, Offered, Wish
from marketplace.flow import Market
from marketplace.funding.rules import Price
from marketplace.openai.batches import Reader
from marketplace.protocol import ids
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.quoting.rules import Need
from marketplace.store import files
from marketplace.store.batch_tables import BatchRow, FileRow
from marketplace.store.files import Numbered
from marketplace.store.tables import Tx
from marketplace.telemetry.logs import get_logger
from marketplace.telemetry.names import Log

log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A file as it came: `content` can be read from the start more than once; no `keep_ms`: the longest."""

    filename: str
    content: BinaryIO
    size_bytes: int
    keep_ms: int | None = None


class Desk:
    """Takes in files of requests, and the batches that shall run them."""

    def __init__(self, market: Market, limits: Limits) -> None:
        self._market, self.limits = market, limits

    async def take_file(self, key: str, upload: Upload) -> FileRow:
        """Keeps a file whose every line can be read. Raises `BadRequest` that names the first that cannot."""
        if upload.size_bytes > self.limits.most_file_bytes:
            raise BadRequest(
                ErrorCode.BODY_TOO_LARGE, f"a file has at most {self.limits.most_file_bytes} bytes"
            )
        url = await self._market.off_loop(lambda: self._read(upload.content))
        now = self._market.clock()
        row = FileRow(
            file_id=ids.file_id(self._market.random(15)),
            key=key,
            purpose="batch",
            filename=upload.filename,
            url=url,
            size_bytes=upload.size_bytes,
            created_at_ms=now,
            expires_at_ms=now + (upload.keep_ms or self._market.terms.most_keep_ms),
        )

        def keep(tx: Tx) -> FileRow:
            upload.content.seek(0)
            return step.keep_file(tx, row, upload.content, self.limits.most_kept_bytes)

        return await self._market.write(keep)

    async def take_batch(self, wish: Wish) -> BatchRow:
        """Keeps a batch once it is known what all its lines can cost; the same call again is the same batch.

        Raises:
            BadRequest: the key cannot pay all of it; nothing was ordered, nothing will be charged.
        """
        market, now = self._market, self._market.clock()
        known = await market.read(lambda tx: step.known_batch(tx, wish, now))
        if known is not None:
            return known
        source = await market.read(lambda tx: step.input_of(tx, wish))
        lines = await self._lines(source.file_id)
        names = Names(
            batch_id=ids.batch_id(market.random(15)),
            output_file_id=ids.file_id(market.random(15)),
            error_file_id=ids.file_id(market.random(15)),
        )
        deadline = now + market.terms.job_timeout_ms
        batch, is_fresh = await market.write(
            lambda tx: step.accept(tx, wish, lines, names, self.limits, now_ms=now, deadline_ms=deadline)
        )
        if is_fresh:
            market.metrics.count("batch_lines_total", batch.failed, end="failed")
            log.info(
                Log.BATCH_ACCEPTED,
                batch_id=batch.batch_id,
                trace_id=wish.trace_id,
                lines=batch.total,
                ceiling_atoms=batch.ceiling_atoms,
            )
        return batch

    def _read(self, content: BinaryIO) -> str:
        reader = Reader(most_lines=self.limits.most_lines, most_bytes=self.limits.most_line_bytes)
        content.seek(0)
        for number, raw in enumerate(content, 1):
            reader.take(number, raw)
        if not reader.requests:
            raise BadRequest(ErrorCode.INVALID_FILE, "the file holds no request")
        return reader.url

    async def _lines(self, file_id: str) -> list[Line]:
        """Every request of a file with its prices, or what is wrong with it."""
        found: list[Line] = []
        pricer = _Pricer(self._market.clock(), self._market.deployment.min_stake_atoms)
        after = 0
        while rows := await self._rows(file_id, after):
            after = rows[-1][0]
            found += await self._priced(rows, pricer)
        return found

    async def _rows(self, file_id: str, after: int) -> list[Numbered]:
        return await self._market.read(lambda tx: files.lines(tx, file_id, after))

    async def _priced(self, rows: Sequence[Numbered], pricer: _Pricer) -> list[Line]:
        decimals = self._market.deployment.token_decimals
        lines = await self._market.off_loop(
            lambda: [step.read_line(number, raw, decimals) for number, raw in rows if raw.strip()]
        )
        fresh = {line.model for line in lines if line.need is not None} - pricer.offered.keys()
        if fresh:
            pricer.offered |= await self._market.read(lambda tx: step.offered(tx, sorted(fresh)))
        return await self._market.off_loop(lambda: [pricer.price(line) for line in lines])


class _Pricer:
    """Prices of lines; those that are alike are worked out once."""

    def __init__(self, now_ms: int, min_stake_atoms: int) -> None:
        self._now_ms, self._min_stake_atoms = now_ms, min_stake_atoms
        self.offered: dict[str, Offered] = {}
        self._known: dict[tuple[str, Need], Sequence[Price] | BadRequest] = {}

    def price(self, line: Line) -> Line:
        """The line with its prices, or with why no node will take it."""
        if line.need is None:
            return line
        found = self._known.get((line.model, line.need))
        if found is None:
            found = self._known[line.model, line.need] = self._price(line.model, line.need)
        return replace(line, problem=found) if isinstance(found, BadRequest) else replace(line, prices=found)

    def _price(self, model: str, need: Need) -> Sequence[Price] | BadRequest:
        found, now, least = self.offered[model], self._now_ms, self._min_stake_atoms
        try:
            quotes = rules.able(found.model, found.listings, need, now_ms=now, min_stake_atoms=least)
        except BadRequest as problem:
            return problem
        return [step.price_of(quote) for quote in quotes]
