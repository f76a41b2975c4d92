"""`watt proxy`: what it is told, what it says, and that it ends in order."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from marketplace.cli import wiring
from marketplace.client.aio import AsyncWattline
from marketplace.client.journal import Journal
from marketplace.protocol.hexes import to_hex
from marketplace.proxy import serve as served
from marketplace.proxy.app import create_app
from marketplace.proxy.calls import Proxy
from tests.cli.conftest import BUYER, Watt
from tests.client.fake_market import FakeMarket

URL = "http://127.0.0.1:8403/v1"
BODY = {"model": "tiny-chat", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 16}
Calls = list[tuple[int, dict[str, Any]]]


class Server:
    """In place of the server: takes what it is given, and answers the calls it was told to."""

    def __init__(self, calls: int) -> None:
        self.calls, self.port, self.token = calls, 0, ""
        self.answers: list[httpx2.Response] = []

    async def __call__(
        self,
        port: int,
        open_client: Callable[[], Awaitable[AsyncWattline]],
        make_proxy: Callable[[AsyncWattline], Awaitable[Proxy]],
        *,
        token: str | None,
        ready: Callable[[Proxy, str], None],
    ) -> None:
        self.port, self.token = port, token or ""
        async with await open_client() as client:
            proxy = await make_proxy(client)
            ready(proxy, URL)
            transport = httpx2.ASGITransport(create_app(proxy, token=token))
            async with httpx2.AsyncClient(transport=transport, base_url=URL) as http:
                for _ in range(self.calls):
                    headers = {"authorization": f"Bearer {token}"}
                    self.answers.append(await http.post("/chat/completions", json=BODY, headers=headers))


@pytest.fixture
def server(market: FakeMarket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Server:
    made = Server(calls=1)

    async def open_async(options: dict[str, Any]) -> AsyncWattline:
        assert options["key"].address == BUYER.address
        desk = market.desk(BUYER, Journal(options["journal_path"]))
        return AsyncWattline(replace(desk, seal=options["seal"]), buyer=BUYER)

    monkeypatch.setattr(wiring, "open_async", open_async)
    monkeypatch.setattr(served, "serve", made)
    return made


def test_it_says_where_it_is_and_what_each_call_cost(watt: Watt, server: Server) -> None:
    ran = watt("proxy", "--budget", "0.5")
    assert (ran.code, ran.out, server.port, server.token) == (0, "", 8403, "")
    assert f"{URL} pays with key {BUYER.address}" in ran.err
    assert "budget 0.50 TUSD, 0.50 of it left" in ran.err
    assert f"OPENAI_BASE_URL={URL} OPENAI_API_KEY=any" in ran.err
    assert "paid 0.000012 TUSD · tiny-chat · node 1 · rcpt_" in ran.err


def test_json_is_one_object_when_it_is_ready(watt: Watt, server: Server) -> None:
    ran = watt("proxy", "--budget", "0.5", "--json")
    assert set(ran.json) == {"url", "key", "gateway", "budget", "sealed"}
    assert (ran.json["url"], ran.json["budget"]["left"], ran.json["sealed"]) == (URL, "0.50", False)
    assert ran.err == ""


@pytest.mark.parametrize("told", ["--seal", "WATT_PROXY_SEAL"])
def test_sealing_is_said_and_holds_for_every_call(
    watt: Watt, server: Server, market: FakeMarket, monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    if told != "--seal":
        monkeypatch.setenv(told, "1")
    ran = watt("proxy", *(["--seal"] if told == "--seal" else []))
    assert "sealed: only the node that does a job reads its input and output" in ran.err
    # No node of this market has a key that could be sealed to, and nothing is sent in plain instead.
    assert server.answers[0].json()["code"] == "seal_unusable"
    assert market.orders == []


def test_budget_goes_on_where_the_last_run_ended(watt: Watt, server: Server, market: FakeMarket) -> None:
    server.calls = 2
    watt("proxy", "--budget", "0.00006")
    assert watt("proxy", "--budget", "0.00006", "--json").json["budget"]["spent_atoms"] == "24"
    refused = server.answers[-1]
    assert (refused.status_code, refused.json()["code"]) == (402, "budget_exceeded")
    assert len(market.orders) == 3


def test_bounds_and_token_hold_for_every_call(
    watt: Watt, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATT_PROXY_TOKEN", "secret")
    watt("proxy", "--port", "9000", "--max-cost", "0.000001", "--node", "2")
    assert (server.port, server.token) == (9000, "secret")
    assert server.answers[0].json()["code"] == "price_above_max"


def test_receipt_that_does_not_hold_is_kept_and_said_where(
    watt: Watt, server: Server, market: FakeMarket, tmp_path: Path
) -> None:
    market.nodes[1].behaviour = "overcharge"
    ran = watt("proxy")
    assert server.answers[0].status_code == 200
    (kept,) = (tmp_path / ".watt" / "faults").iterdir()
    assert kept.name.split(".")[0] in market.bundles
    assert "watt dispute proof" in ran.err


def test_key_file_of_an_agent_pays_with_the_journal_beside_it(
    watt: Watt, server: Server, tmp_path: Path
) -> None:
    key = tmp_path / "agent.key"
    key.write_text(to_hex(BUYER.secret))
    key.chmod(0o600)
    assert watt("proxy", "--key", key).code == 0
    assert (tmp_path / "agent.journal.db").exists()


@pytest.mark.parametrize(
    ("words", "code", "remedy"),
    [
        (("--key", "nowhere.key"), 3, "watt wallet new"),
        (("--budget", "much"), 1, "amount"),
        (("--port", "70000"), 2, ""),
    ],
)
def test_what_cannot_be_is_refused_with_the_remedy(
    watt: Watt, server: Server, words: tuple[str, ...], code: int, remedy: str
) -> None:
    ran = watt("proxy", *words)
    assert ran.code == code
    assert remedy in ran.err


def test_error_is_json_where_that_was_asked_for(watt: Watt, server: Server) -> None:
    told = json.loads(watt("proxy", "--key", "nowhere.key", "--json").out)
    assert told["error"]["code"] == "not_found"
