"""The proxy's routes: the gateway's, as an OpenAI client knows them, and what the buyer alone may see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final
from urllib.parse import quote

from fastapi import Body, FastAPI, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from marketplace.openai import answers, requests
from marketplace.openai.completions import CompletionCall, TextChunks, text_completion
from marketplace.openai.unsupported import UNSUPPORTED
from marketplace.protocol.errors import BadRequest, ErrorCode, WattError
from marketplace.protocol.payloads import TASKS, ChatPayload, Payload
from marketplace.proxy import problems, responses
from marketplace.proxy.calls import SSE, Proxy, Shape, hints_of, only_choice
from marketplace.proxy.edge import HEALTH, Edge

MAX_BODY_BYTES: Final = 8_388_608
_ROWS: Final = "buy a whole file of rows with your own key: watt map FILE"
# What OpenAI has routes for and a proxy does not do, told apart from mistyped routes.
_ELSEWHERE: Final = UNSUPPORTED | {"files": _ROWS, "batches": _ROWS}


def create_app(proxy: Proxy, *, token: str | None = None, max_body_bytes: int = MAX_BODY_BYTES) -> Edge:
    """The app over one buyer's client; without a `token` any bearer value is as good as none."""
    app = FastAPI(title="Wattline proxy", docs_url=None, redoc_url=None, openapi_url=None)
    problems.install(app)
    _openai(app, proxy)
    for task, kind in TASKS.items():
        if task not in ("chat", "embed"):
            _add_task(app, proxy, task, kind)
    app.include_router(responses.routes(proxy))
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
        feed = proxy.start(call, call.payload(), hints_of(request))
        began, done = await feed.done()
        body = answers.embeddings(call.model, done.answer, call.encoding_format)
        return JSONResponse(body | proxy.answered("embed", done), headers=proxy.headers(began))

    @app.post("/v1/chat/completions")
    async def chat(call: requests.ChatCall, request: Request) -> Response:
        payload = only_choice(call.payloads(0), call)
        return await _text(proxy, request, call, payload, answers.ChatChunks, answers.chat_completion)

    @app.post("/v1/completions")
    async def complete(call: CompletionCall, request: Request) -> Response:
        payload = only_choice(call.payloads(0), call)
        return await _text(proxy, request, call, payload, TextChunks, text_completion)


async def _text(
    proxy: Proxy,
    request: Request,
    call: requests.Generation,
    payload: ChatPayload,
    chunks: type[Shape],
    whole: Callable[..., dict[str, Any]],
) -> Response:
    """A generation in a route's shapes, streamed or whole."""
    feed = proxy.start(call, payload, hints_of(request), streamed=call.stream)
    began, item = await feed.first()
    created = proxy.client.desk.now_ms() // 1000
    if call.stream:
        shape = chunks(job_id=began.job_id, model=call.model, created=created)
        lines = proxy.lines(feed, shape, item, request.state.request_id)
        return StreamingResponse(lines, media_type="text/event-stream", headers=SSE | proxy.headers(began))
    done = await feed.end(item)
    body = whole(done.bundle.job_id, call.model, created, done.answer)
    return JSONResponse(body | proxy.answered("chat", done), headers=proxy.headers(began))


def _add_task(app: FastAPI, proxy: Proxy, task: str, kind: type[Payload]) -> None:
    """Route of a task that OpenAI has no route for: its payload's fields in, its answer as JSON out."""

    async def run(call: requests.TaskCall, request: Request) -> Response:
        began, done = await proxy.start(call, call.payload(task), hints_of(request)).done()
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

    @app.api_route("/v1/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    async def elsewhere(path: str) -> None:
        here = next((name for name in _ELSEWHERE if f"{path}/".startswith(f"{name}/")), None)
        if here is not None:
            hint = f"A gateway may do more, with a bearer key of its own: {desk.gateway.url}/v1/{path[:80]}"
            detail = f"this is not done at /v1/{here} of watt proxy: {_ELSEWHERE[here]}"
            raise BadRequest(ErrorCode.UNSUPPORTED, detail, hint=hint)
        raise BadRequest(ErrorCode.NOT_FOUND, hint="See the guide: With nobody in between.")
