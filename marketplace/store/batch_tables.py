"""Tables of files and batches; units as in `tables`."""

from __future__ import annotations

from sqlalchemy import BigInteger, Index
from sqlmodel import Field, SQLModel


class FileRow(SQLModel, table=True):
    """A buyer's file of requests, or what came of one; `url` is where its lines go, empty for what came."""

    __tablename__ = "file"
    file_id: str = Field(primary_key=True)
    key: str = Field(index=True)
    purpose: str
    filename: str
    url: str = ""
    size_bytes: int = Field(sa_type=BigInteger)
    created_at_ms: int = Field(sa_type=BigInteger)
    expires_at_ms: int = Field(sa_type=BigInteger, index=True)


class FileLineRow(SQLModel, table=True):
    """One line of a file with its end, exactly as it came."""

    __tablename__ = "file_line"
    file_id: str = Field(primary_key=True)
    number: int = Field(primary_key=True)
    body: bytes


class BatchRow(SQLModel, table=True):
    """A file whose lines are placed as jobs of one key.

    `status` is a `BatchStatus`, `ending` the one it stops with, once that is not `completed`. `ceiling_atoms`
    is the most all its lines can cost; `problem` says why lines wait now. `labels` are the caller's, as JSON.
    `keep_ms` is how long its results are kept once it has ended.
    """

    __tablename__ = "batch"
    batch_id: str = Field(primary_key=True)
    key: str = Field(index=True)
    endpoint: str
    input_file_id: str = Field(index=True)
    output_file_id: str
    error_file_id: str
    labels: str
    trace_id: str
    idempotency: str | None = Field(default=None, unique=True)
    fingerprint: str
    status: str = Field(index=True)
    ending: str | None = None
    problem: str = ""
    total: int
    completed: int = 0
    failed: int = 0
    max_cost_atoms: int | None = Field(default=None, sa_type=BigInteger)
    ceiling_atoms: int = Field(sa_type=BigInteger)
    cost_atoms: int = Field(default=0, sa_type=BigInteger)
    units_in: int = Field(default=0, sa_type=BigInteger)
    units_out: int = Field(default=0, sa_type=BigInteger)
    energy_millijoules: int = Field(default=0, sa_type=BigInteger)
    created_at_ms: int = Field(sa_type=BigInteger)
    expires_at_ms: int = Field(sa_type=BigInteger)
    keep_ms: int = Field(sa_type=BigInteger)
    began_at_ms: int | None = Field(default=None, sa_type=BigInteger)
    cancelling_at_ms: int | None = Field(default=None, sa_type=BigInteger)
    finalizing_at_ms: int | None = Field(default=None, sa_type=BigInteger)
    ended_at_ms: int | None = Field(default=None, sa_type=BigInteger)
    version: int = 0


class BatchLineRow(SQLModel, table=True):
    """One request of a batch. `state` is a `LineState`; `session_id` is what shall pay its ceiling.

    `tries` counts jobs of it that failed, none of them charged.
    """

    __tablename__ = "batch_line"
    __table_args__ = (Index("batch_line_next", "batch_id", "state", "number"),)
    batch_id: str = Field(primary_key=True)
    number: int = Field(primary_key=True)
    custom_id: str
    model: str
    state: str
    session_id: str = ""
    ceiling_atoms: int = Field(default=0, sa_type=BigInteger)
    job_id: str | None = Field(default=None, index=True)
    tries: int = 0
