from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from marketplace.cli import wiring
from marketplace.cli.app import invoke
from marketplace.client.aio import AsyncWattline
from marketplace.client.journal import Journal
from marketplace.client.sync import Wattline
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.signing import Signer
from tests.cli import shapes
from tests.client.courtroom import BUYER as CHAIN_BUYER
from tests.client.courtroom import Courtroom
from tests.client.fake_market import FakeMarket
from tests.client.fakes import DEPLOYMENT, Clock, FakeNode
from tests.client.sealed_market import SealedMarket
from tests.hardhat import Chain, chain, hardhat_node  # noqa: F401 - fixtures

BUYER = Signer(b"\x11" * 32)


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        assert self.out.count("\n") == 1, "exactly one JSON object on stdout"
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found


Watt = Callable[..., Ran]


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of the machine leaks in; the working folder is empty."""
    import os

    for name in [n for n in os.environ if n.startswith("WATT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def watt(capsys: pytest.CaptureFixture[str]) -> Watt:
    def run(*arguments: object) -> Ran:
        capsys.readouterr()
        code = invoke([str(a) for a in arguments])
        seen = capsys.readouterr()
        shapes.look([str(a) for a in arguments], seen.out)
        return Ran(int(code), seen.out, seen.err)

    return run


@pytest.fixture
def market(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeMarket:
    """A market that `watt` finds as it finds a running `watt up`."""
    made = FakeMarket([FakeNode(1, price_per_job=10), FakeNode(2, price_per_job=20)], Clock())
    find(made, monkeypatch, tmp_path)
    return made


@pytest.fixture
def sealed_market(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SealedMarket:
    """The same, whose nodes take sealed orders."""
    made = SealedMarket([FakeNode(1)], Clock())
    find(made, monkeypatch, tmp_path)
    return made


def find(made: FakeMarket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Has `watt` find this market."""
    made.chain.accounts[BUYER.address] = 5_000_000
    journal = tmp_path / "client.db"

    def client(config: object, passphrase_file: Path | None = None, *, seal: bool = False) -> Wattline:
        async def make() -> AsyncWattline:
            desk = dataclasses.replace(made.desk(BUYER, Journal(journal)), seal=seal)
            return AsyncWattline(desk, buyer=BUYER)

        return Wattline(make)

    monkeypatch.setattr(wiring, "open_client", client)
    monkeypatch.setattr(wiring, "open_gateway", lambda config: made.desk(BUYER).gateway)
    monkeypatch.setattr(wiring, "open_chain", lambda config: made.chain)
    profile = tmp_path / ".watt" / "market.json"
    profile.parent.mkdir()
    DEPLOYMENT.save(tmp_path / ".watt" / "deployment.json")
    values = {
        "gateway_url": "http://gateway.test",
        "rpc_url": "http://rpc.test",
        "deployment": str(tmp_path / ".watt" / "deployment.json"),
        "api_key": "sk-watt-demo",
        "buyers": [{"address": BUYER.address, "private_key": "0x" + "11" * 32}],
    }
    profile.write_text(json.dumps(values))


@pytest.fixture
def here(chain: Chain, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Chain:  # noqa: F811 - the fixture above
    """A chain the command finds by its variables; the buyer's key is in WATT_PRIVATE_KEY."""
    chain.deployment.save(tmp_path / "deployment.json")
    monkeypatch.setenv("WATT_RPC_URL", chain.url)
    monkeypatch.setenv("WATT_DEPLOYMENT_PATH", str(tmp_path / "deployment.json"))
    monkeypatch.setenv("WATT_PRIVATE_KEY", to_hex(CHAIN_BUYER.secret))
    return chain


@pytest.fixture
def room(here: Chain) -> Courtroom:
    return Courtroom(here)
