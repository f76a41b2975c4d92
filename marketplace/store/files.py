"""Buyers' files of requests and what came of them, kept line by line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from sqlalchemy import func, insert
from sqlmodel import Session, col, delete, select

from marketplace.openai.batches import OVER
from marketplace.store.batch_tables import BatchRow, FileLineRow, FileRow

Numbered = tuple[int, bytes]
# Lines may have megabytes, and a file ten thousand: what is in memory at a time is bounded.
_AT_ONCE: Final = 200
_BYTES_AT_ONCE: Final = 4 << 20


def add(tx: Session, row: FileRow, lines: Iterable[Numbered] = ()) -> None:
    """A file with its lines."""
    tx.add(row)
    tx.flush()
    add_lines(tx, row.file_id, lines)


def add_lines(tx: Session, file_id: str, lines: Iterable[Numbered]) -> None:
    """More lines of a file, by number."""
    for part in _parts(lines):
        rows = [{"file_id": file_id, "number": number, "body": body} for number, body in part]
        tx.execute(insert(FileLineRow), rows)


def find(tx: Session, file_id: str, key: str) -> FileRow | None:
    """A key's own file."""
    row = tx.get(FileRow, file_id)
    return row if row is not None and row.key == key else None


def of_key(
    tx: Session,
    key: str,
    limit: int,
    after: str | None = None,
    *,
    purpose: str | None = None,
    oldest_first: bool = False,
) -> list[FileRow]:
    """A key's files from the one after `after`, newest first unless told otherwise."""
    query = select(FileRow).where(FileRow.key == key)
    if purpose is not None:
        query = query.where(FileRow.purpose == purpose)
    made, name = col(FileRow.created_at_ms), col(FileRow.file_id)
    last = find(tx, after, key) if after else None
    if last is not None:
        beyond = made > last.created_at_ms if oldest_first else made < last.created_at_ms
        query = query.where(beyond | ((made == last.created_at_ms) & (name > last.file_id)))
    return list(tx.exec(query.order_by(made if oldest_first else made.desc(), name).limit(limit)))


def kept_bytes(tx: Session, key: str) -> int:
    """What all files of a key take up."""
    found = tx.exec(select(func.sum(FileRow.size_bytes)).where(FileRow.key == key)).first()
    return int(found or 0)


def lines(tx: Session, file_id: str, after: int, most_bytes: int = _BYTES_AT_ONCE) -> list[Numbered]:
    """The next lines of a file above a number, in order: as many as fit, but at least one."""
    until = _fitting(tx, file_id, after, most_bytes)
    query = (
        select(FileLineRow.number, FileLineRow.body)
        .where(
            FileLineRow.file_id == file_id,
            col(FileLineRow.number) > after,
            col(FileLineRow.number) <= until,
        )
        .order_by(col(FileLineRow.number))
    )
    return [(number, body) for number, body in tx.exec(query)]


def line(tx: Session, file_id: str, number: int) -> bytes | None:
    """One line of a file."""
    row = tx.get(FileLineRow, (file_id, number))
    return row.body if row else None


def replace_line(tx: Session, file_id: str, number: int, body: bytes) -> None:
    """Another text for a line that is there; a file that is shown has its size mended."""
    row = tx.get(FileLineRow, (file_id, number))
    if row is None:
        return
    file = tx.get(FileRow, file_id)
    if file is not None:
        file.size_bytes += len(body) - len(row.body)
    row.body = body


def due(tx: Session, now_ms: int, limit: int) -> list[str]:
    """Files whose time is over and which no unfinished batch reads, longest ago first."""
    over = [status.value for status in OVER]
    reading = select(BatchRow.input_file_id).where(col(BatchRow.status).not_in(over))
    query = select(FileRow.file_id).where(
        col(FileRow.expires_at_ms) <= now_ms, col(FileRow.file_id).not_in(reading)
    )
    return list(tx.exec(query.order_by(col(FileRow.expires_at_ms)).limit(limit)))


def size_bytes(tx: Session, file_id: str) -> int:
    """Bytes of a file's lines; 0 when it has none."""
    query = select(func.sum(func.length(FileLineRow.body))).where(FileLineRow.file_id == file_id)
    return int(tx.exec(query).first() or 0)


def remove(tx: Session, file_id: str) -> None:
    """Forgets a file and its lines. Idempotent."""
    tx.exec(delete(FileLineRow).where(col(FileLineRow.file_id) == file_id))
    tx.exec(delete(FileRow).where(col(FileRow.file_id) == file_id))


def _fitting(tx: Session, file_id: str, after: int, most_bytes: int) -> int:
    query = (
        select(FileLineRow.number, func.length(FileLineRow.body))
        .where(FileLineRow.file_id == file_id, col(FileLineRow.number) > after)
        .order_by(col(FileLineRow.number))
        .limit(_AT_ONCE)
    )
    until, taken = after, 0
    for number, size in tx.exec(query):
        taken += size
        if until != after and taken > most_bytes:
            break
        until = number
    return until


def _parts(lines: Iterable[Numbered]) -> Iterator[list[Numbered]]:
    part: list[Numbered] = []
    taken = 0
    for number, body in lines:
        part.append((number, body))
        taken += len(body)
        if len(part) == _AT_ONCE or taken > _BYTES_AT_ONCE:
            yield part
            part, taken = [], 0
    if part:
        yield part
