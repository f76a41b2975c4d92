"""A whole local market under test: start it, find its processes, kill them, gather its evidence."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from marketplace.local.market import Market
from marketplace.local.options import Style, UpOptions
from marketplace.local.up import run_up
from tests.e2e.checker import Evidence, SignedReceipt, fold
from tests.e2e.wiretap import Wiretap
from tests.e2e.witness import Witness

MODELS = Path(os.environ.get("WATT_MODELS_DIR", "build/models"))


class MarketUnderTest:
    """`watt up` in a thread of its own, with the same processes as everybody's."""

    def __init__(self, data_dir: Path, node_settings: dict[str, str], *, tapped: bool = False) -> None:
        """A `tapped` one can be listened to: its nodes come by a wiretap, and its gateway logs all it can."""
        self.data_dir = data_dir
        port = free_port()
        self.tap = Wiretap(port).start() if tapped else None
        to_gateway = {"WATT_NODE_GATEWAY_URL": self.tap.link_url} if self.tap else {}
        self._stop = threading.Event()
        self._code: int | None = None
        self._options = UpOptions(
            data_dir=data_dir,
            models_dir=MODELS,
            style=Style.JSON,
            node_settings=node_settings | to_gateway,
            gateway_settings={"WATT_LOG_LEVEL": "DEBUG"} if tapped else {},
            port=port,
        )
        self._thread = threading.Thread(target=self._run, name="market", daemon=True)

    def start(self, seconds: float = 300) -> None:
        """Returns once it is ready for buyers."""
        self._thread.start()
        wait_until(lambda: self._code is not None or self._is_ready(), seconds, "the market")
        assert self._code is None, f"the market ended with {self._code}"

    def stop(self) -> int:
        """Stops it in peace; its exit code."""
        self._stop.set()
        self._thread.join(120)
        if self.tap:
            self.tap.stop()
        assert self._code is not None, "the market did not stop"
        return self._code

    @property
    def market(self) -> Market:
        """Where everything is now."""
        return Market.load(self.data_dir / "market.json")

    def pid(self, name: str) -> int:
        """Process of the gateway, the broker, the chain or a node's daemon."""
        return self.market.processes[name].pid

    def workers(self, node: str, queue: str) -> list[int]:
        """A node's Celery workers of one queue, found below its daemon."""
        return [pid for pid, line in descendants(self.pid(node)) if f".{queue}" in line]

    def kill(self, pid: int) -> None:
        """As a power cut would: no signal handler runs."""
        os.kill(pid, signal.SIGKILL)

    def settle(self) -> None:
        """Has every node settle what it has vouchers for, however little that is."""
        watt = str(Path(sys.executable).with_name("watt"))
        for node in self.market.nodes:
            command = [watt, "node", "settle", "--data-dir", node.data_dir]
            subprocess.run(command, check=True, capture_output=True, timeout=150)

    def get(self, path: str, **headers: str) -> Any:
        """JSON of one gateway page."""
        request = urllib.request.Request(self.market.gateway_url + path, headers=headers)  # noqa: S310
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
            return json.load(response)

    def evidence(self) -> Evidence:
        """Chain events and state, and every receipt of every session on the chain."""
        market = self.market
        deployment = json.loads(Path(market.deployment).read_text())
        witness = Witness(market.rpc_url, deployment["escrow"], deployment["token"])
        sessions = fold(witness.evidence([])).deposited
        return witness.evidence([r for session in sessions for r in self._receipts(session)])

    def _receipts(self, session: str) -> list[SignedReceipt]:
        rows = self.get(f"/v1/sessions/{session}/receipts")["data"]
        return [_signed(self.get(f"/v1/receipts/{row['receipt_id']}")) for row in rows]

    def _is_ready(self) -> bool:
        return (self.data_dir / "market.json").exists()

    def _run(self) -> None:
        self._code = run_up(self._options, stop=self._stop)


def stop_when_told() -> None:
    """Has a script end in order when it is sent SIGTERM, so that it leaves no market running."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))


def wait_until(condition: Callable[[], bool], seconds: float, what: str, every_seconds: float = 0.2) -> None:
    """Polls until it holds.

    Raises:
        AssertionError: it did not within `seconds`.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(every_seconds)


def descendants(pid: int) -> list[tuple[int, str]]:
    """Processes below one, with their command lines."""
    found = []
    for child in _children(pid):
        found += [(child, _command(child)), *descendants(child)]
    return found


def free_port() -> int:
    """A loopback port nobody listens on now."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task")
    if not tasks.exists():
        return []
    return [int(c) for task in tasks.iterdir() for c in (task / "children").read_text().split()]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def _signed(bundle: dict[str, Any]) -> SignedReceipt:
    def words(name: str) -> bytes:
        return bytes.fromhex(bundle[name]["message"][2:])

    return SignedReceipt(
        offer=words("offer"),
        order=words("order"),
        receipt=words("receipt"),
        receipt_signature=bytes.fromhex(bundle["receipt"]["signature"][2:]),
        node_signer=bundle["node"]["signer"],
        job_id=bundle["job_id"],
    )
