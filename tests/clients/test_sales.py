"""A call that is not what it should be is found, whatever of it is wrong."""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from marketplace.client.aio import AsyncWattline
from marketplace.client.bundle import Bundle
from marketplace.protocol.signing import Signer
from tests.client.fake_market import FakeMarket
from tests.client.fakes import Clock, FakeNode
from tests.clients import __main__ as clients
from tests.clients.environments import PINS, NoEnvironment, command, variables
from tests.clients.matrix import CLIENTS, QUICK, figures_of
from tests.clients.sales import Sale, faults

BUYER = Signer(b"\x11" * 32)
PAID = 12


@pytest.fixture
async def bundle() -> AsyncIterator[Bundle]:
    market = FakeMarket([FakeNode(1, price_per_job=10)], Clock())
    market.chain.accounts[BUYER.address] = 5_000_000
    async with AsyncWattline(market.desk(BUYER), buyer=BUYER) as watt:
        yield (await watt.chat("hi", model="tiny-chat", max_tokens=16)).bundle


@pytest.fixture
def sale(bundle: Bundle) -> Sale:
    assert bundle.receipt.amount_atoms == PAID
    return Sale(
        call="stream",
        asked="first",
        answer="Hello, world",
        cost=0.000012,
        atoms="12",
        receipt=bundle.to_json(),
        pieces=2,
    )


EXPECTED = {"first": "Hello, world", "second": "Hello", "lines": "{}\n"}


def test_honest_call_has_no_fault(sale: Sale) -> None:
    assert faults(sale, EXPECTED) == []
    assert faults(replace(sale, cost="0.000012"), EXPECTED) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"asked": "second"}, "not that of a plain call"),
        ({"asked": "unknown"}, "not that of a plain call"),
        ({"answer": "Hello, wor1d"}, "not the signed one"),
        ({"answer": ""}, "not that of a plain call"),
        ({"pieces": 1}, "1 pieces"),
        ({"atoms": "11"}, "11 atoms"),
        ({"atoms": None}, "None atoms"),
        ({"cost": 0.000013}, "1.3e-05 units"),
        ({"cost": "free"}, "free units"),
        ({"receipt": None}, "no receipt"),
    ],
)
def test_one_wrong_thing_is_one_fault(sale: Sale, change: dict[str, Any], said: str) -> None:
    found = faults(replace(sale, **change), EXPECTED)
    assert [said in sentence for sentence in found].count(True) == 1, found


def test_forged_receipt_is_named_by_the_check_it_fails(sale: Sale) -> None:
    assert sale.receipt is not None
    chunks = list(sale.receipt["chunks"])
    chunks[0] = base64.b64encode(base64.b64decode(chunks[0]).replace(b"Hello", b"Jello")).decode()
    found = faults(replace(sale, receipt={**sale.receipt, "chunks": chunks}), EXPECTED)
    assert [sentence.split(":")[1] for sentence in found] == [" response hash"]


def test_file_needs_no_receipt_and_comes_back_as_it_was() -> None:
    assert faults(Sale(call="files", asked="lines", answer="{}\n"), EXPECTED) == []
    assert faults(Sale(call="files", asked="lines", answer="{}"), EXPECTED) != []


def test_call_that_was_never_made_and_a_program_that_failed_are_faults(sale: Sale) -> None:
    figures = {figure.name: figure for figure in figures_of(("stream", "chat"), [sale], EXPECTED, "")}
    assert (figures["stream"].met, figures["chat"].met, figures["paid"].value) == (True, False, PAID)
    (failed,) = [f for f in figures_of(("stream",), [sale], EXPECTED, "it ended with 1") if not f.met]
    assert failed.why == ("it ended with 1",)


def test_every_package_of_every_client_is_pinned() -> None:
    places = {client.environment for client in CLIENTS}
    assert {path.stem for path in PINS.iterdir()} == places
    lines = [line for path in PINS.glob("*.txt") for line in path.read_text().splitlines()]
    pins = [line for line in lines if not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[\w.-]+==[\w.]+", pin)] == []
    assert [pin for pin in pins if pin.startswith("openai==2.")] != []


def test_quick_form_takes_clients_that_are_installed() -> None:
    assert [client.name for client in QUICK] == ["openai-3 async", "x402", "mcp"]


def test_environment_that_cannot_be_made_says_why() -> None:
    with pytest.raises(NoEnvironment, match=r"unheard-of\.txt"):
        command("unheard-of", "openai_python.py")


def test_clients_program_is_not_led_to_our_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/ours")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://elsewhere")
    monkeypatch.setenv("KEPT", "1")
    given = variables()
    assert (given.get("PYTHONPATH"), given.get("OPENAI_BASE_URL"), given["KEPT"]) == (None, None, "1")


def test_unknown_client_is_refused_with_the_names(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        clients.main(["--only", "nobody"])
    assert ended.value.code == 2
    assert "openai-js" in capsys.readouterr().err
