"""OpenAI's responses, bought with the buyer's own key. The journal keeps for a day what each was asked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from marketplace.client.bundle import Bundle
from marketplace.client.desk import threaded
from marketplace.client.journal import Journal
from marketplace.client.verify import failures, verify_receipt
from marketplace.client.work import Done, Piece
from marketplace.openai import responses
from marketplace.openai.response_calls import Echo, ResponseCall, continued
from marketplace.openai.responses import About
from marketplace.protocol.errors import BadRequest, ErrorCode, ProviderFault, WattError
from marketplace.protocol.payloads import Answer, ChatMessage, ChatPayload
from marketplace.proxy import problems
from marketplace.proxy.calls import SSE, Proxy, event, hints_of, unseeded
from marketplace.proxy.feed import Feed

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS response (
  job_id TEXT PRIMARY KEY, key TEXT NOT NULL, model TEXT NOT NULL, payload TEXT NOT NULL, echo TEXT NOT NULL,
  made_ms INTEGER NOT NULL)
"""
_KEPT_MS: Final = 24 * 3_600_000
_ENDED: Final = frozenset({"failed", "expired", "refunded"})


def routes(proxy: Proxy) -> APIRouter:
    """Make, and ask for. What they do not answer is not done here."""
    router, desk = APIRouter(), proxy.client.desk
    book = ResponseBook(desk.journal, desk.key.address)

    @router.post("/v1/responses")
    async def create(call: ResponseCall, request: Request) -> Response:
        if call.background:
            detail = "a call here ends with its receipt: stream it, or send it again with its Idempotency-Key"
            raise BadRequest(ErrorCode.UNSUPPORTED, detail, param="background")
        earlier = await _earlier(proxy, book, call.previous_response_id)
        payload = unseeded(call.payload(0, earlier), call.seed)
        feed = proxy.start(call, payload, hints_of(request), streamed=call.stream)
        began, item = await feed.first()
        about = About(
            job_id=item.bundle.job_id if isinstance(item, Done) else began.job_id,
            model=call.model,
            created_at=desk.now_ms() // 1000,
            payload=payload,
            echo=call.echo(),
        )
        if about.echo.store:
            book.keep(about, desk.now_ms())
        if call.stream:
            lines = _lines(proxy, feed, about, item, request.state.request_id)
            return StreamingResponse(
                lines, media_type="text/event-stream", headers=SSE | proxy.headers(began)
            )
        return JSONResponse(_whole(proxy, about, (await feed.end(item)).bundle), headers=proxy.headers(began))

    @router.get("/v1/responses/{response_id}")
    async def show(
        response_id: str, request: Request, *, stream: bool = Query(default=False)
    ) -> dict[str, Any]:
        if stream:
            raise BadRequest(ErrorCode.UNSUPPORTED, "a stream is followed once, as it comes", param="stream")
        about = book.find(response_id, desk.now_ms())
        bundle = await _bundle(proxy, about)
        if isinstance(bundle, Bundle):
            return _whole(proxy, about, bundle)
        if bundle in _ENDED:
            problem = BadRequest(ErrorCode.NODE_FAILED, f"job {about.job_id} brought no answer")
            return responses.failed(about, problems.body_of(problem, request.state.request_id))
        return responses.unfinished(about) | {"job_id": about.job_id}

    return router


@dataclass(frozen=True, slots=True)
class ResponseBook:
    """What each response was asked with, in the journal's file."""

    _journal: Journal
    _key: str

    def __post_init__(self) -> None:
        with self._journal.writing() as db:
            db.execute(_SCHEMA)

    def keep(self, about: About, now_ms: int) -> None:
        """Keeps it for a day; the same call again is kept once."""
        row = (about.job_id, self._key, about.model, about.payload.model_dump_json())
        with self._journal.writing() as db:
            db.execute("DELETE FROM response WHERE made_ms<?", (now_ms - _KEPT_MS,))
            db.execute(
                "INSERT OR IGNORE INTO response VALUES (?,?,?,?,?,?)",
                (*row, about.echo.model_dump_json(), about.created_at * 1000),
            )

    def find(self, response_id: str, now_ms: int) -> About:
        """A response of this key. Raises `BadRequest` where it made none by this id in the last day."""
        job_id = responses.job_id(response_id)
        found = "SELECT * FROM response WHERE job_id=? AND key=? AND made_ms>=?"
        rows = self._journal.rows(found, job_id, self._key, now_ms - _KEPT_MS)
        if not rows:
            raise BadRequest(ErrorCode.UNKNOWN_JOB, f"this key has no response {response_id[:64]!r}")
        return About(
            job_id=job_id,
            model=rows[0]["model"],
            created_at=rows[0]["made_ms"] // 1000,
            payload=ChatPayload.model_validate_json(rows[0]["payload"]),
            echo=Echo.model_validate_json(rows[0]["echo"]),
        )


async def _earlier(proxy: Proxy, book: ResponseBook, previous: str | None) -> Sequence[ChatMessage]:
    """The conversation up to an earlier response of this key. Raises `BadRequest`."""
    if previous is None:
        return ()
    about = book.find(previous, proxy.client.desk.now_ms())
    bundle = await _bundle(proxy, about)
    if not isinstance(bundle, Bundle):
        detail = f"{previous} has no answer to go on from; ask for it: GET /v1/responses/{previous}"
        raise BadRequest(ErrorCode.INVALID_REQUEST, detail, param="previous_response_id")
    return continued(about.payload, about.echo, Answer(bundle.chunks).text)


async def _bundle(proxy: Proxy, about: About) -> Bundle | str:
    """A response's verified evidence; the phase of its job where there is none.

    Raises:
        ProviderFault: the gateway holds another answer than was signed.
    """
    job = await proxy.client.job(about.job_id)
    if not job.get("receipt_id"):
        return str(job["phase"])
    found = await proxy.client.receipt(str(job["receipt_id"]))
    wrong = failures(await threaded(verify_receipt, found))
    if wrong:
        raise ProviderFault(ErrorCode.RECEIPT_INVALID, f"{about.job_id}: {wrong[0].name}: {wrong[0].detail}")
    return Bundle.from_json(found)


async def _lines(
    proxy: Proxy, feed: Feed, about: About, item: Piece | Done, request_id: str
) -> AsyncIterator[str]:
    events = responses.Events(about)
    for made in events.opening():
        yield event(made, made["type"])
    try:
        async for piece in feed.rest(item):
            if isinstance(piece, Done):
                coming = events.closing(_whole(proxy, about, piece.bundle))
            else:
                coming = events.text(piece)
            for made in coming:
                yield event(made, made["type"])
    except WattError as error:
        body = problems.body_of(error, request_id)
        # Of unknown end: the order is kept, and the same call asks for it again.
        over = body["code"] in (ErrorCode.NOT_READY, ErrorCode.INTERNAL)
        made = events.broken(body) if over else events.failed(body)
        yield event(made, made["type"])


def _whole(proxy: Proxy, about: About, bundle: Bundle) -> dict[str, Any]:
    return responses.answered(about, Answer(bundle.chunks)) | {
        "usage": proxy.used_by_response(bundle),
        "completed_at": bundle.receipt.finished_at_ms // 1000,
        "job_id": about.job_id,
        "receipt": bundle.to_json(),
    }
