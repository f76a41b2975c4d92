"""Two gateways behind one name count in one Valkey; while it is away, nobody is refused."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from marketplace.api.limits import RateLimits, Rates
from marketplace.local.programs import find_valkey
from tests.api.test_limits import taken
from tests.e2e.market import wait_until

pytestmark = pytest.mark.broker


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(find_valkey()), "--port", str(port), "--save", "", "--dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        wait_until(lambda: answers(port), 10, "Valkey", every_seconds=0.02)
        yield f"valkey://127.0.0.1:{port}/0", server
        server.kill()


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def test_gateways_share_their_counts_and_go_on_without_them(
    valkey: tuple[str, subprocess.Popen[bytes]],
) -> None:
    url, server = valkey
    first, second = (RateLimits(Rates(per_key=4, per_address=0, store_url=url)) for _ in range(2))
    assert [await taken(limits, secret="one") for limits in (first, second)] == [4, 0]
    assert await taken(second, secret="two") == 4
    server.kill()
    server.wait()
    assert await taken(first, secret="one") == 10
