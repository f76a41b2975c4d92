"""Bodies made to hurt: refused early, by a clear error, in bounded memory; never a defect of ours."""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc

import pytest
from starlette.exceptions import HTTPException

from marketplace.api import bodies
from marketplace.api.bodies import BodyLimits
from marketplace.protocol.errors import BadRequest, ErrorCode
from tests.flow.gateway import gateway
from tests.flow.node import bearer, chat_body, funded

ROUTES = ("/v1/chat/completions", "/v1/embeddings", "/v1/quotes", "/v1/jobs", "/v1/keys", "/v1/sessions")
JSON = {"content-type": "application/json"}


def nested(levels, kind="[]"):
    return kind[0] * levels + kind[1] * levels


def with_extra(value):
    return json.dumps(chat_body())[:-1] + f', "metadata": {value}}}'


HOSTILE = {
    "deep": (nested(100_000).encode(), 400, "body_too_deep"),
    "deep in a field": (with_extra(nested(500)).encode(), 400, "body_too_deep"),
    "deep objects": (('{"a":' * 5_000 + "1" + "}" * 5_000).encode(), 400, "body_too_deep"),
    "brackets that open and never close": (b"[" * 500_000, 400, "body_too_deep"),
    "NaN": (with_extra("NaN").encode(), 400, "malformed_body"),
    "minus infinity": (with_extra('{"a": [-Infinity]}').encode(), 400, "malformed_body"),
    "no UTF-8": (with_extra('"x"').encode().replace(b'"x"', b'"\xff"'), 400, "malformed_body"),
    "UTF-16": (with_extra('"x"').encode("utf-16"), 400, "malformed_body"),
    "zero bytes": (b'{"model": "tiny\x00"}', 400, "malformed_body"),
    "cut off": (json.dumps(chat_body())[:-5].encode(), 400, "malformed_body"),
    "a string without end": (b'{"model": "' + b"a" * 900_000, 400, "malformed_body"),
    "many escapes": (b'{"a": "' + b"\\" * 900_000, 400, "malformed_body"),
    "nothing but quotes": (b'"' * 900_000, 400, "malformed_body"),
    "a number of a million digits": (with_extra("9" * 900_000).encode(), 400, "malformed_body"),
    "not an object": (b"7", 400, "malformed_body"),
    "wide": (with_extra("[" + "[]," * 60_000 + "0]").encode(), 413, "body_too_large"),
    "wide in names": (with_extra("{" + '"":0,' * 60_000 + '"":0}').encode(), 413, "body_too_large"),
    "wide in numbers": (b'{"input":[' + b"0," * 60_000 + b"0]}", 413, "body_too_large"),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_body_is_refused_and_changes_nothing(tmp_path, name):
    body, status, code = HOSTILE[name]
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, _):
        before = g.rows()
        answer = await g.http.post(ROUTES[0], content=body, headers=bearer(secret) | JSON)
        told = answer.json()
        assert (answer.status_code, told["code"], told["charged"]) == (status, code, False), told
        for route in ROUTES[1:]:
            again = await g.http.post(route, content=body, headers=bearer(secret) | JSON)
            assert again.status_code in (400, 413, 422), (route, again.text)
        assert g.rows() == before
        assert nodes[1].orders.empty()


async def test_body_within_the_limits_is_read(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, _):
        commas = f'"{"," * 60_000}"'
        strings = ('"NaN [[[[ \\" Infinity"', '{"a": "-Infinity"}', json.dumps(["[{" * 300]), commas)
        for value in (nested(60), *strings):
            content = with_extra(value)
            answer = await g.http.post(ROUTES[0], content=content, headers=bearer(secret) | JSON)
            assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate, gzip", "x-unknown"])
async def test_compressed_body_is_refused_before_it_is_read(tmp_path, encoding):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, _):
        content = gzip.compress(json.dumps(chat_body()).encode())
        headers = bearer(secret) | JSON | {"content-encoding": encoding}
        answer = await g.http.post(ROUTES[0], content=content, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (415, "body_compressed")
        plain = headers | {"content-encoding": "identity"}
        assert (await g.http.post(ROUTES[0], json=chat_body(), headers=plain)).status_code == 200


def scope_of(**headers):
    given = {"content-length": "5", "content-type": "application/json"} | headers
    pairs = [(name.encode(), value.encode()) for name, value in given.items()]
    return {"type": "http", "path": "/", "headers": pairs}


async def stalled():
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("kind", "error"), [("application/json", BadRequest), ("multipart/form-data; boundary=x", HTTPException)]
)
async def test_body_that_never_ends_is_given_up(kind, error):
    limits = BodyLimits(max_bytes=100, timeout_ms=5)

    async def read():
        receive = await bodies.taken(scope_of(**{"content-type": kind}), stalled, limits)
        await receive()

    with pytest.raises(error) as seen:
        await read()
    status = seen.value.status_code if error is HTTPException else seen.value.spec.status
    assert status == 408


async def test_time_of_a_body_is_one_for_all_its_pieces():
    pieces = 0

    async def dripping():
        nonlocal pieces
        pieces += 1
        await asyncio.wait([asyncio.ensure_future(stalled())], timeout=0.004)
        return {"type": "http.request", "body": b" ", "more_body": True}

    with pytest.raises(BadRequest) as seen:
        await bodies.taken(scope_of(), dripping, BodyLimits(max_bytes=1_000_000, timeout_ms=20))
    assert seen.value.code is ErrorCode.BODY_TOO_SLOW
    assert 1 < pieces < 10


async def test_endless_body_is_cut_at_its_limit_in_bounded_memory():
    block = b" " * 65_536

    async def endless():
        return {"type": "http.request", "body": block, "more_body": True}

    tracemalloc.start()
    with pytest.raises(BadRequest) as seen:
        await bodies.taken(
            scope_of(**{"transfer-encoding": "chunked"}), endless, BodyLimits(max_bytes=1 << 20)
        )
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seen.value.code is ErrorCode.BODY_TOO_LARGE
    assert most < 4 << 20


async def test_caller_that_hangs_up_is_told_nothing():
    async def gone():
        return {"type": "http.disconnect"}

    receive = await bodies.taken(scope_of(), gone, BodyLimits(max_bytes=100))
    assert (await receive())["type"] == "http.disconnect"
