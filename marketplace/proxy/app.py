"""The proxy's routes: the gateway's, as an OpenAI client knows them, and what the buyer alone may see."""

from __future__ import annotations

from typing import Annotated, Any, Final
from urllib.parse import quote

from fastapi import Body, FastAPI, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from marketplace.openai import answers, requests
from marketplace.protocol.errors import BadRequest, ErrorCode, WattError
from marketplace.protocol.payloads import TASKS, Payload
from marketplace.proxy import problems
from marketplace.proxy.calls import Hints, Proxy, chat_payload
from marketplace.proxy.edge import HEALTH, Edge

MAX_BODY_BYTES: Final = 8_388_608
_SSE: Final = {"cache-control": "no-cache", "x-accel-buffering": "no"}
# Routes of OpenAI's that this proxy does not have, told apart from mistyped ones.
_ELSEWHERE: Final = (
    *("audio", "assistants", "batches", "completions", "conversations", "files", "fine_tuning", "images"),
    *("moderations", "realtime", "responses", "threads", "uploads", "vector_stores", "videos"),
)


def create_app(proxy: Proxy, *, token: str | None = None, max_body_bytes: int = MAX_BODY_BYTES) -> Edge:
    """The app over one buyer's client; without a `token` any bearer value is as good as none."""
    app = FastAPI(title="Wattline proxy", docs_url=None, redoc_url=None, openapi_url=None)
    problems.install(app)
    _openai(app, proxy)
    for task, kind in TASKS.items():
        if task not in ("chat", "embed"):
            _add_task(app, proxy, task, kind)
    _market(app, proxy)
    _own(app, proxy)
    return Edge(app, token=token, max_body_bytes=max_body_bytes)


def _openai(app: FastAPI, proxy: Proxy) -> None:
    gateway = proxy.client.desk.gateway

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return await gateway.get("/v1/models")

    @app.get("/v1/models/{model:path}")
    async def model(model: str) -> dict[str, Any]:
        return await gateway.get(f"/v1/models/{quote(model)}")

    @app.post("/v1/embeddings")
    async def embed(call: requests.EmbedCall, request: Request) -> Response:
        feed = proxy.start(call, call.payload(), _hints(request))
        began, done = await feed.done()
        body = answers.embeddings(call.model, done.answer, call.encoding_format)
        return JSONResponse(body | proxy.answered("embed", done), headers=proxy.headers(began))

    @app.post("/v1/chat/completions")
    async def chat(call: requests.ChatCall, request: Request) -> Response:
        feed = proxy.start(call, chat_payload(call), _hints(request), streamed=call.stream)
        if call.stream:
            head = await feed.first()
            lines = proxy.lines(feed, call.model, head, request.state.request_id)
            headers = _SSE | proxy.headers(head[0])
            return StreamingResponse(lines, media_type="text/event-stream", headers=headers)
        began, done = await feed.done()
        created = proxy.client.desk.now_ms() // 1000
        body = answers.chat_completion(done.bundle.job_id, call.model, created, done.answer)
        return JSONResponse(body | proxy.answered("chat", done), headers=proxy.headers(began))


def _add_task(app: FastAPI, proxy: Proxy, task: str, kind: type[Payload]) -> None:
    """Route of a task that OpenAI has no route for: its payload's fields in, its answer as JSON out."""

    async def run(call: requests.TaskCall, request: Request) -> Response:
        began, done = await proxy.start(call, call.payload(task), _hints(request)).done()
        body = answers.task_answer(task, kind, call.model, done.answer)
        return JSONResponse(body | proxy.answered(task, done), headers=proxy.headers(began))

    # FastAPI reads the body's fields here; they are known only now.
    run.__annotations__ = {"call": requests.task_call(task, kind), "request": Request, "return": Response}
    app.add_api_route(f"/v1/{task}", run, methods=["POST"])


def _market(app: FastAPI, proxy: Proxy) -> None:
    client, gateway = proxy.client, proxy.client.desk.gateway

    @app.post("/v1/quotes")
    async def quotes(body: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
        return await gateway.post("/v1/quotes", proxy.quote_body(body))

    @app.get("/v1/nodes")
    async def nodes() -> dict[str, Any]:
        return await gateway.get("/v1/nodes")

    @app.get("/v1/jobs")
    async def jobs(
        limit: int = Query(default=20, ge=1, le=100), after: str | None = Query(default=None)
    ) -> dict[str, Any]:
        return {"object": "list", "data": await client.jobs(limit=limit, after=after)}

    @app.get("/v1/jobs/{job_id}")
    async def job(job_id: str) -> dict[str, Any]:
        return await client.job(job_id)

    @app.post("/v1/jobs/{job_id}/cancel")
    async def cancel(job_id: str) -> dict[str, Any]:
        return await client.cancel(job_id)

    @app.get("/v1/receipts/{receipt_id}")
    async def receipt(receipt_id: str) -> dict[str, Any]:
        return await client.receipt(receipt_id)


def _own(app: FastAPI, proxy: Proxy) -> None:
    desk = proxy.client.desk

    @app.get("/v1/budget")
    async def budget() -> dict[str, Any]:
        return proxy.budget()

    @app.get(HEALTH)
    async def health() -> Response:
        found = {"ok": True, "key": desk.key.address, "gateway": desk.gateway.url}
        try:
            await desk.gateway.get("/livez")
        except WattError as error:
            return JSONResponse(found | {"ok": False, "detail": error.detail}, 503)
        return JSONResponse(found)

    @app.api_route("/v1/{path:path}", methods=["GET", "POST", "DELETE"])
    async def elsewhere(path: str) -> None:
        if path.split("/")[0] in _ELSEWHERE:
            hint = f"Ask the gateway itself, with a bearer key: {desk.gateway.url}/v1/{path[:80]}"
            raise BadRequest(ErrorCode.UNSUPPORTED, f"watt proxy has no /v1/{path[:80]}", hint=hint)
        raise BadRequest(ErrorCode.NOT_FOUND, hint="See the guide: With nobody in between.")


def _hints(request: Request) -> Hints:
    # OpenAI clients count their own retries, and send no idempotency key.
    retries = request.headers.get("x-stainless-retry-count", "0")
    return Hints(name=request.headers.get("idempotency-key", ""), repeated=retries not in ("", "0"))
