"""Calls of an app from inside its process."""

from __future__ import annotations

import anyio
import httpx2
import pytest

from marketplace.mcp.loopback import Loopback


async def echo(scope, receive, send):
    message = await receive()
    start = {
        "status": 200,
        "headers": [(b"x-path", scope["path"].encode()), (b"x-client", scope["client"][0].encode())],
    }
    await send({"type": "http.response.start"} | start)
    await send({"type": "http.response.body", "body": message["body"], "more_body": False})


def client(app, address=None):
    return httpx2.AsyncClient(base_url="http://gateway", transport=Loopback(app, address))


async def test_body_path_and_caller_arrive():
    async with client(echo, ("10.1.2.3", 5)) as http:
        answer = await http.post("/v1/x", content=b"hello")
        assert (answer.text, answer.headers["x-path"], answer.headers["x-client"]) == (
            "hello",
            "/v1/x",
            "10.1.2.3",
        )


async def test_parts_are_read_while_the_app_still_runs_and_it_hears_of_a_reader_that_leaves():
    go_on, left = anyio.Event(), anyio.Event()

    async def slow(scope, receive, send):
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await go_on.wait()
        await send({"type": "http.response.body", "body": b"two", "more_body": True})
        assert (await receive())["type"] == "http.disconnect"
        left.set()

    async with client(slow) as http, http.stream("GET", "/") as answer:
        parts = answer.aiter_raw()
        assert await anext(parts) == b"one"
        go_on.set()
        assert await anext(parts) == b"two"
    with anyio.fail_after(5):
        await left.wait()


async def test_app_finishes_what_its_caller_no_longer_waits_for():
    begun, go_on, done = anyio.Event(), anyio.Event(), anyio.Event()

    async def slow(scope, receive, send):
        begun.set()
        await go_on.wait()
        done.set()

    async with client(slow) as http, anyio.create_task_group() as tasks:
        tasks.start_soon(http.get, "/")
        await begun.wait()
        tasks.cancel_scope.cancel()
    go_on.set()
    with anyio.fail_after(5):
        await done.wait()


async def test_app_that_gives_no_answer_is_a_transport_error():
    async def silent(scope, receive, send):
        return

    async with client(silent) as http:
        with pytest.raises(httpx2.ReadError, match="without an answer"):
            await http.get("/")
