"""Pages a gateway carries along: every error explained, and what is on offer in words."""

from __future__ import annotations

import asyncio

import pytest
from jsonschema import validate

from marketplace.explain import errors, overview
from marketplace.explain.overview import OnOffer
from marketplace.protocol.errors import Broken, ErrorCode
from tests.flow.gateway import gateway
from tests.flow.node import funded


async def test_the_page_a_problem_points_at_is_there_and_explains_it(tmp_path):
    async with gateway(tmp_path) as g:
        problem = (await g.http.get("/v1/jobs")).json()
        page = await g.http.get(problem["doc_url"])
        assert page.headers["content-type"] == "text/markdown; charset=utf-8"
        assert page.text.startswith("# missing_key\n")
        for part in ("## Why", "## What to do", "watt keys bearer", "## Was it charged?", "## Does a retry"):
            assert part in page.text
        assert (await g.http.get(problem["doc_url"] + ".md")).text == page.text


async def test_the_openapi_page_describes_the_errors_that_are_sent(tmp_path):
    async with gateway(tmp_path) as g:
        page = (await g.http.get("/openapi.json")).json()
        schema = page["components"]["schemas"]["Problem"]
        for path in ("/v1/jobs", "/v1/jobs/job_x", "/v1/batches?limit=0"):
            validate((await g.http.get(path)).json(), schema)
    for operation in (found for methods in page["paths"].values() for found in methods.values()):
        assert list(operation["responses"]["default"]["content"]) == ["application/problem+json"]
        assert "422" not in operation["responses"]


async def test_every_code_is_listed_with_a_page_that_answers(tmp_path):
    async with gateway(tmp_path) as g:
        listed = (await g.http.get("/docs/errors")).text
        for code in ErrorCode:
            assert f"({errors.path(code)})" in listed
            assert (await g.http.get(errors.path(code))).text == errors.page(code)
        unknown = await g.http.get("/docs/errors/nonsense")
        assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")


def test_a_code_that_nobody_wrote_about_is_a_defect(monkeypatch):
    monkeypatch.setattr(errors, "prose", dict)
    with pytest.raises(Broken, match="says nothing about no_node"):
        errors.page(ErrorCode.NO_NODE)


async def test_llms_txt_names_what_is_on_offer_now_with_its_price(tmp_path):
    async with gateway(tmp_path) as g:
        assert "None at the moment" in (await g.http.get("/llms.txt")).text
        async with funded(g, 1):
            text = (await g.http.get("/llms.txt")).text
            rows = [line for line in text.splitlines() if line.startswith("| mini")]
            assert rows
            assert "| 0.00001 | 1.00 |" in rows[0]
            assert "TUSD" in text
        # That a link broke is heard of by and by.
        async with asyncio.timeout(20):
            while "None at the moment" not in (await g.http.get("/llms.txt")).text:
                await asyncio.sleep(0.01)


async def test_the_long_form_holds_every_error_page_under_its_own_heading(tmp_path):
    async with gateway(tmp_path) as g:
        text = (await g.http.get("/llms-full.txt")).text
    for code in ErrorCode:
        assert f"\n### {code}\n" in text
    assert text.count("\n# ") == 0


def test_a_model_name_stays_in_its_cell():
    model = OnOffer(
        name="a|b\n# c",
        tasks=("chat",),
        context_tokens=1,
        per_job="0.00",
        in_per_million="1.00",
        out_per_million="2.00",
        nodes=1,
    )
    assert "| a b # c | chat |" in overview.short([model], "TUSD")
