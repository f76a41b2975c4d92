"""Files of requests over HTTP, through the stock client, and every file that is refused."""

from __future__ import annotations

import json

import httpx2
import pytest
from openai import APIStatusError, NotFoundError

from marketplace.api.app import create_app
from marketplace.api.routes.system import Health
from marketplace.batches.step import Limits
from tests.api.test_requests import check_problem
from tests.batches.support import chat_line, client_of, embed_line, jsonl, started
from tests.flow.gateway import gateway
from tests.flow.node import bearer, funded

TWO = jsonl([chat_line(1), chat_line(2)])


async def sent(g, secret, data=TWO, *, name="calls.jsonl", **form):
    fields = {"purpose": "batch"} | form
    return await g.http.post("/v1/files", files={"file": (name, data)}, data=fields, headers=bearer(secret))


async def refused(g, secret, data, code, status, said, **form):
    before = g.rows()
    body = check_problem(await sent(g, secret, data, **form), status, code)
    assert said in body["detail"]
    assert g.rows() == before


async def test_stock_client_sends_lists_fetches_and_deletes_a_file(tmp_path):
    async with gateway(tmp_path) as g:
        client = client_of(g, (await g.new_key())[0])
        made = await client.files.create(file=("calls.jsonl", TWO), purpose="batch")
        assert made.id.startswith("file-")
        assert (made.object, made.bytes, made.filename) == ("file", len(TWO), "calls.jsonl")
        assert (made.purpose, made.status) == ("batch", "processed")
        assert await client.files.retrieve(made.id) == made
        assert (await client.files.list()).data == [made]
        assert (await client.files.content(made.id)).content == TWO
        assert (await client.files.delete(made.id)).deleted is True
        with pytest.raises(NotFoundError) as gone:
            await client.files.content(made.id)
        assert gone.value.code == "unknown_file"
        assert (await client.files.list()).data == []


# What a file's bytes are is kept as it is: ends of lines, empty lines, and a last line without an end.
async def test_file_comes_back_byte_for_byte(tmp_path):
    async with gateway(tmp_path) as g:
        secret, _ = await g.new_key()
        lines = [json.dumps(chat_line(i, "é" * 40, pad=i)).encode() for i in range(120)]
        data = b"\n" + b"\r\n".join(lines) + b"\n\n" + json.dumps(chat_line(999)).encode()
        made = (await sent(g, secret, data)).json()
        answer = await g.http.get(f"/v1/files/{made['id']}/content", headers=bearer(secret))
        assert (made["bytes"], answer.content) == (len(data), data)


async def test_files_are_listed_page_by_page_in_both_orders(tmp_path):
    async with gateway(tmp_path) as g:
        client = client_of(g, (await g.new_key())[0])
        made = []
        for _ in range(5):
            made.append((await client.files.create(file=("a.jsonl", TWO), purpose="batch")).id)
            g.clock.now_ms += 1_000
        assert [file.id async for file in client.files.list(limit=2)] == made[::-1]
        assert [file.id async for file in client.files.list(limit=2, order="asc")] == made
        page = await client.files.list(limit=2)
        assert (page.has_more, len(page.data)) == (True, 2)
        assert (await client.files.list(purpose="batch_output")).data == []
        for query in ("purpose=%00", "limit=0", "limit=10001", "after=job_a", "order=up"):
            answer = await g.http.get(
                f"/v1/files?{query}", headers={"authorization": f"Bearer {client.api_key}"}
            )
            check_problem(answer, 422, "invalid_request")


async def test_files_of_one_moment_are_listed_once_each(tmp_path):
    async with gateway(tmp_path) as g:
        client = client_of(g, (await g.new_key())[0])
        made = {(await client.files.create(file=("a", TWO), purpose="batch")).id for _ in range(4)}
        for order in ("asc", "desc"):
            found = [file.id async for file in client.files.list(limit=1, order=order)]
            assert (len(found), set(found)) == (4, made)


async def test_another_key_sees_nothing_of_a_file(tmp_path):
    async with gateway(tmp_path) as g:
        mine, _ = await g.new_key()
        other, _ = await g.new_key()
        made = (await sent(g, mine)).json()
        for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
            answer = await g.http.request(method, f"/v1/files/{made['id']}{path}", headers=bearer(other))
            check_problem(answer, 404, "unknown_file")
        assert (await g.http.get("/v1/files", headers=bearer(other))).json()["data"] == []
        listed = await g.http.get("/v1/files", params={"after": made["id"]}, headers=bearer(other))
        assert listed.json()["data"] == []


async def test_stranger_is_refused_before_anything_is_read(tmp_path):
    async with gateway(tmp_path) as g:
        check_problem(await g.http.post("/v1/files", files={"file": ("a", TWO)}), 401, "missing_key")
        check_problem(await g.http.get("/v1/files"), 401, "missing_key")
        check_problem(await sent(g, "sk-watt-nobody"), 401, "unknown_key")


BAD = {
    "an empty file": (b"", "the file holds no request"),
    "only empty lines": (b"\n\n", "the file holds no request"),
    "a line that is no JSON": (TWO + b"{", "line 3: it is not JSON"),
    "a custom_id twice": (TWO + TWO, "line 3: custom_id 'call-1' is that of line 1 too"),
    "two urls": (TWO + jsonl([embed_line(3, "a")]), "line 3: url is /v1/embeddings"),
    "bytes that are no text": (b"\xff\xfe", "line 1: it is not UTF-8"),
}


@pytest.mark.parametrize("what", BAD)
async def test_bad_file_is_refused_and_nothing_of_it_kept(tmp_path, what):
    data, said = BAD[what]
    async with gateway(tmp_path) as g:
        await refused(g, (await g.new_key())[0], data, "invalid_file", 422, said)


async def test_form_that_is_not_one_is_refused(tmp_path):
    async with gateway(tmp_path) as g:
        secret, _ = await g.new_key()
        await refused(g, secret, TWO, "unsupported", 422, "purpose must be batch", purpose="fine-tune")
        for later in (
            {"expires_after[anchor]": "created_at"},
            {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3599"},
            {"expires_after[anchor]": "created_at", "expires_after[seconds]": "2592001"},
            {"expires_after[anchor]": "last_active_at", "expires_after[seconds]": "3600"},
            {"expires_after": "soon"},
        ):
            await refused(g, secret, TWO, "invalid_request", 422, "expires_after: anchor created_at", **later)
        headers = bearer(secret)
        for call, said in (
            ({"json": {"purpose": "batch"}}, "send multipart/form-data"),
            ({"data": {"purpose": "batch"}}, "send multipart/form-data"),
            ({"files": {"other": ("a", TWO)}, "data": {"purpose": "batch"}}, "file: send the file itself"),
            ({"files": [("file", ("a", TWO)), ("file", ("b", TWO))]}, "the form is not readable"),
        ):
            body = check_problem(
                await g.http.post("/v1/files", headers=headers, **call), 422, "invalid_request"
            )
            assert said in body["detail"]
        broken = headers | {"content-type": "multipart/form-data; boundary=x"}
        answer = await g.http.post("/v1/files", headers=broken, content=b"--y\r\n\r\n")
        assert "the form is not readable" in check_problem(answer, 422, "invalid_request")["detail"]


async def test_file_in_use_is_not_deleted(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, _):
        client = client_of(g, secret)
        batch = await started(client, [chat_line(1)])
        with pytest.raises(APIStatusError) as refusal:
            await client.files.delete(batch.input_file_id)
        assert (refusal.value.status_code, refusal.value.code) == (409, "file_in_use")
        assert batch.id in refusal.value.message


async def test_names_of_files_are_cut_and_cleaned(tmp_path):
    async with gateway(tmp_path) as g:
        secret, _ = await g.new_key()
        made = (await sent(g, secret, name="a\u202eb" + "x" * 400)).json()
        assert made["filename"].startswith("abxx")
        assert len(made["filename"]) == 255


async def test_bounds_on_size_lines_and_what_a_key_keeps(tmp_path):
    limits = Limits(
        most_file_bytes=2_000, most_line_bytes=400, most_lines=4, most_kept_bytes=2 * len(TWO) - 1
    )
    async with gateway(tmp_path) as g:
        secret, _ = await g.new_key()
        health = Health(checks=list, lag_blocks=lambda: 0)
        app = create_app(g.market, health, max_body_bytes=1_000, limits=limits)
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://gateway") as g.http:
            # The edge refuses what is announced too large, the desk what is, the reader what is too long.
            await refused(g, secret, b"x" * 80_000, "body_too_large", 413, "at most 67536 bytes")
            await refused(g, secret, b"x" * 2_001, "body_too_large", 413, "a file has at most 2000 bytes")
            await refused(g, secret, TWO + b"\n" * 3, "body_too_large", 413, "more than 4 lines")
            long = jsonl([chat_line(1, "x" * 400)])
            await refused(g, secret, long, "body_too_large", 413, "line 1 has more than 400 bytes")
            assert (await sent(g, secret)).status_code == 200
            await refused(g, secret, TWO, "body_too_large", 413, "delete some")
            (kept,) = (await g.http.get("/v1/files", headers=bearer(secret))).json()["data"]
            await g.http.delete(f"/v1/files/{kept['id']}", headers=bearer(secret))
            assert (await sent(g, secret)).status_code == 200


async def test_body_that_hides_its_size_is_cut_off(tmp_path):
    async with gateway(tmp_path) as g:
        secret, _ = await g.new_key()

        async def endless():
            yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
            for _ in range(40):
                yield b"y" * (1 << 20)

        headers = bearer(secret) | {"content-type": "multipart/form-data; boundary=x"}
        answer = await g.http.post("/v1/files", headers=headers, content=endless())
        check_problem(answer, 413, "body_too_large")


async def test_other_routes_keep_their_smaller_bound(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, _):
        answer = await g.http.post("/v1/batches", headers=bearer(secret), content=b"x" * ((1 << 20) + 1))
        check_problem(answer, 413, "body_too_large")
