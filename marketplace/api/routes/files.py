"""Files of requests, as OpenAI clients send and fetch them; each belongs to the key that sent it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from marketplace.api import retention
from marketplace.api.auth import bearer
from marketplace.api.routes.jobs import page
from marketplace.batches import step
from marketplace.batches.desk import Desk, Upload
from marketplace.dispatch.terms import Terms
from marketplace.flow import Market
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.store import files
from marketplace.store.batch_tables import FileRow
from marketplace.store.files import Numbered

_FIELDS: Final = 8
_MOST_AT_ONCE: Final = 1_000
_MOST_NAME: Final = 255
_FORM: Final = {
    "type": "object",
    "required": ["file", "purpose"],
    "properties": {
        "file": {"type": "string", "format": "binary", "description": "Requests, one JSON object a line."},
        "purpose": {"type": "string", "enum": ["batch"]},
        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
        "expires_after[seconds]": {"type": "integer", "minimum": 3_600, "maximum": 2_592_000},
    },
}
FILE_ID: Final = "^file-[a-z2-7]{1,40}$"


def routes(market: Market, desk: Desk) -> APIRouter:
    """Routes about files."""
    router = APIRouter(tags=["batches"])
    _sending(router, market, desk)
    _fetching(router, market)
    return router


def _sending(router: APIRouter, market: Market, desk: Desk) -> None:
    body = {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}

    @router.post("/v1/files", openapi_extra={"requestBody": body})
    async def upload(request: Request) -> dict[str, Any]:
        """Keeps a file of requests whose every line can be read."""
        # The key first: nobody's body is kept for a stranger.
        key = await bearer(market, request)
        form = await _form(request)
        try:
            return file_view(await desk.take_file(key.address, _upload(form, market.terms)))
        finally:
            await form.close()

    @router.delete("/v1/files/{file_id}")
    async def delete(file_id: str, request: Request) -> dict[str, Any]:
        """Forgets a file that no unfinished batch reads."""
        key = await bearer(market, request)
        await market.erase(lambda tx: step.remove_file(tx, file_id, key.address))
        return {"id": file_id, "object": "file", "deleted": True}


def _fetching(router: APIRouter, market: Market) -> None:
    @router.get("/v1/files")
    async def listed(
        request: Request,
        limit: int = Query(default=100, ge=1, le=10_000, description="At most 1000 come at a time."),
        after: str | None = Query(default=None, pattern=FILE_ID),
        order: Literal["asc", "desc"] = "desc",
        purpose: str | None = Query(default=None, pattern="^[a-z_-]{1,32}$"),
    ) -> dict[str, Any]:
        """Lists the caller's files, newest first."""
        key, most = (await bearer(market, request)).address, min(limit, _MOST_AT_ONCE)
        rows = await market.read(
            lambda tx: files.of_key(tx, key, most + 1, after, purpose=purpose, oldest_first=order == "asc")
        )
        return page([file_view(row) for row in rows[:most]], "id", has_more=len(rows) > most)

    @router.get("/v1/files/{file_id}")
    async def file(file_id: str, request: Request) -> dict[str, Any]:
        """Shows a file."""
        key = await bearer(market, request)
        return file_view(await market.read(lambda tx: step.own_file(tx, file_id, key.address)))

    @router.get("/v1/files/{file_id}/content")
    async def content(file_id: str, request: Request) -> Response:
        """Gives a file's lines: of an input file as they came, of a batch's in the order of its input."""
        key = await bearer(market, request)
        row = await market.read(lambda tx: step.own_file(tx, file_id, key.address))
        return StreamingResponse(_content(market, row.file_id), media_type="application/jsonl")


def file_view(row: FileRow) -> dict[str, Any]:
    """A file in OpenAI's shape."""
    return {
        "id": row.file_id,
        "object": "file",
        "bytes": row.size_bytes,
        "created_at": row.created_at_ms // 1000,
        "filename": row.filename,
        "purpose": row.purpose,
        "status": "processed",
        "expires_at": row.expires_at_ms // 1000,
    }


async def _content(market: Market, file_id: str) -> AsyncIterator[bytes]:
    after = 0
    while rows := await _rows(market, file_id, after):
        after = rows[-1][0]
        yield b"".join(body for _, body in rows)


async def _rows(market: Market, file_id: str, after: int) -> list[Numbered]:
    return await market.read(lambda tx: files.lines(tx, file_id, after))


async def _form(request: Request) -> FormData:
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise BadRequest(ErrorCode.INVALID_REQUEST, "send multipart/form-data with file and purpose")
    try:
        return await request.form(max_files=1, max_fields=_FIELDS)
    except HTTPException as error:
        if error.status_code != 400:
            raise
        raise BadRequest(ErrorCode.INVALID_REQUEST, f"the form is not readable: {error.detail}") from error


def _upload(form: FormData, terms: Terms) -> Upload:
    file, purpose = form.get("file"), form.get("purpose")
    if not isinstance(file, UploadFile):
        raise BadRequest(ErrorCode.INVALID_REQUEST, "file: send the file itself", param="file")
    if purpose != "batch":
        raise BadRequest(ErrorCode.UNSUPPORTED, "purpose must be batch", param="purpose")
    keep_ms = retention.file_keep_ms(terms, _expires_after(form), "expires_after")
    name = "".join(letter for letter in file.filename or "" if letter.isprintable())
    return Upload(filename=name[:_MOST_NAME], content=file.file, size_bytes=file.size or 0, keep_ms=keep_ms)


def _expires_after(form: FormData) -> retention.ExpiresAfter | None:
    """As OpenAI's clients write it, a field a part: `expires_after[seconds]`."""
    given = {
        name.removeprefix("expires_after[").removesuffix("]"): value
        for name, value in form.items()
        if name.startswith("expires_after")
    }
    try:
        return retention.ExpiresAfter.model_validate(given) if given else None
    except ValidationError as error:
        detail = "expires_after: anchor created_at, and 3600 to 2592000 seconds"
        raise BadRequest(ErrorCode.INVALID_REQUEST, detail, param="expires_after") from error
