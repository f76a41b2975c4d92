"""How long a buyer wants input and output kept, and what is said when they are gone."""

from __future__ import annotations

import re
from typing import Any, Final, Literal

from fastapi import Request
from pydantic import BaseModel, Field

from marketplace.api import views
from marketplace.dispatch.terms import Terms
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.store.tables import JobRow, Tx

HEADER: Final = "x-watt-retain"
# Less would take an answer away from a client that is still trying to fetch it.
LEAST_MS: Final = 5 * 60 * 1000
_DURATION: Final = re.compile(r"([1-9][0-9]{0,5})([smhd])", re.ASCII)
_MS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
WAIVED: Final = (
    "Input and output are deleted here; the node keeps its own copy until its windows close. Hashes, amounts "
    "and receipt stay. Without the content this job can no longer be disputed."
)


def keep_ms(terms: Terms, request: Request, field: str | None) -> int | None:
    """How long the caller wants content kept; None when it says nothing. Raises `BadRequest`."""
    given = field if field is not None else request.headers.get(HEADER)
    if given is None:
        return None
    found = _DURATION.fullmatch(given.strip())
    if found is None:
        raise _refused(f"{given[:16]!r} is no duration; write it as in 1h")
    wanted = int(found[1]) * _MS[found[2]]
    if not LEAST_MS <= wanted <= terms.most_keep_ms:
        most = terms.most_keep_ms // 3_600_000
        raise _refused(f"content is kept for 5m to {most}h; delete the job to end sooner")
    return wanted


class ExpiresAfter(BaseModel):
    """OpenAI's way to say how long something is kept: so long from when it is there."""

    anchor: Literal["created_at"]
    seconds: int = Field(ge=3_600, le=2_592_000)


def file_keep_ms(terms: Terms, given: ExpiresAfter | None, param: str) -> int:
    """How long a file is kept: as asked, else the longest. Raises `BadRequest` for longer than that."""
    if given is None:
        return terms.most_keep_ms
    if given.seconds * 1000 > terms.most_keep_ms:
        most = terms.most_keep_ms // 3_600_000
        raise BadRequest(ErrorCode.INVALID_REQUEST, f"{param}: files are kept {most}h at most", param=param)
    return given.seconds * 1000


def deleted_view(tx: Tx, job: JobRow) -> dict[str, Any]:
    """The answer to a deletion."""
    return {
        "job_id": job.job_id,
        "object": "job",
        "deleted": True,
        "deleted_at_ms": job.deleted_at_ms,
        "deletion": views.deletion_view(tx, job),
        "waives_dispute": True,
        "note": WAIVED,
    }


def _refused(detail: str) -> BadRequest:
    return BadRequest(ErrorCode.INVALID_REQUEST, f"retain: {detail}", param="retain")
