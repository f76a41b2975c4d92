"""Whatever path a stock client knows gets a clear answer, not a missing page."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import openai
import pytest
from starlette.routing import Match

from marketplace.api.app import create_app
from marketplace.api.routes.system import Health
from tests.api.test_requests import check_problem
from tests.flow.gateway import gateway

# Sold by rooms of their own.
ELSEWHERE = ("/files", "/batches")


def paths_of_the_stock_client():
    """Every path its resources name."""
    resources = Path(openai.__file__).parent / "resources"
    texts = [page.read_text() for page in resources.rglob("*.py")]
    found = {path for text in texts for path in re.findall(r'"(/[a-z_]+(?:/[a-z_{}]+)*)"', text)}
    return sorted(path for path in found if not path.startswith(ELSEWHERE))


@pytest.fixture(scope="module")
def routes():
    market = SimpleNamespace(metrics=None)
    return create_app(market, Health(checks=list, lag_blocks=lambda: None), max_body_bytes=1).routes


def test_every_path_of_the_stock_client_is_answered(routes):
    paths = paths_of_the_stock_client()
    assert len(paths) > 150
    lost = [path for path in paths if not answers(routes, path)]
    assert lost == []


def answers(routes, path):
    filled = "/v1" + re.sub(r"\{[a-z_]+\}", "x", path)
    scope = {"type": "http", "method": "POST", "path": filled, "root_path": "", "headers": []}
    return any(route.matches(scope)[0] is not Match.NONE for route in routes)


INSTEAD = [
    ("POST", "/v1/moderations", "/v1/classify"),
    ("POST", "/v1/images/generations", "/v1/models"),
    ("POST", "/v1/audio/speech", "/v1/models"),
    ("GET", "/v1/fine_tuning/jobs", "/v1/models"),
    ("POST", "/v1/threads/t/runs", "previous_response_id"),
    ("POST", "/v1/vector_stores", "/v1/rerank"),
    ("POST", "/v1/uploads", "in the call itself"),
    ("GET", "/v1/chat/completions", "/v1/jobs"),
    ("DELETE", "/v1/responses/resp_x", "its job"),
    ("GET", "/v1/responses/resp_x/input_items", "its job"),
]


async def test_what_is_not_sold_says_what_to_do_instead_and_is_not_retried(tmp_path):
    async with gateway(tmp_path) as g:
        for method, path, instead in INSTEAD:
            answer = await g.http.request(method, path)
            assert instead in check_problem(answer, 422, "unsupported")["detail"]
            assert answer.headers["x-should-retry"] == "false"


async def test_stock_client_raises_a_clear_error(tmp_path):
    async with gateway(tmp_path) as g:
        client = openai.AsyncOpenAI(base_url=f"{g.url}/v1", api_key="x")
        with pytest.raises(openai.UnprocessableEntityError, match="/v1/classify") as caught:
            await client.moderations.create(input="x")
        assert (caught.value.code, caught.value.body["charged"]) == ("unsupported", False)
