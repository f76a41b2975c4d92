"""Both sides of the latency bench, as processes: our market with one node, and FastAPI with Celery.

Ours is what `watt up` starts, by the same commands: gateway, the node's daemon and its two Celery workers,
and a development chain. Bare is one uvicorn process and one Celery worker. Both use one bundled Valkey, one
thread of torch, the same model folder, and the default settings of gateway and node but for a spare worker,
which would only wait. The chain is not counted: both sides run beside it.
"""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import redis

from marketplace.chain.client import ChainClient
from marketplace.local import commands, probes, treasury
from marketplace.local.child import Child, Command
from marketplace.local.layout import Layout
from marketplace.local.ports import HOST, free_port
from marketplace.local.programs import find_hardhat, find_valkey
from tests.assure.report import ROOT
from tests.bench import bare_names
from tests.e2e.market import descendants

_START_SECONDS: Final = 120.0
_STOP_SECONDS: Final = 40.0
_NODE: Final = "node-1"
_SETTINGS: Final = {
    "WATT_NODE_SPARE_WORKER": "false",
    # As the settings have them; the local market pays within seconds for whoever watches.
    "WATT_NODE_SETTLE_MAX_AGE_MS": "600000",
    "WATT_NODE_SETTLE_EVERY_MS": "15000",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """Where a chat call goes, and how many processes answer it."""

    name: str
    url: str
    model: str
    key: str
    processes: int


class _Processes:
    """What was started, stopped in reverse."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._run_id = secrets.token_hex(16)
        self._children: list[Child] = []

    def start(self, command: Command) -> Child:
        self._children.append(Child(command, self._run_id))
        return self._children[-1]

    def until(self, ready: Callable[[], bool], what: str) -> None:
        """Waits; raises `RuntimeError` with the end of the log when a process has ended or is too slow."""
        deadline = time.monotonic() + _START_SECONDS
        while not ready():
            for child in self._children:
                if child.exit_code() is not None or time.monotonic() > deadline:
                    told = "\n".join(child.tail())
                    raise RuntimeError(f"waited for {what}; {child.name} says:\n{told}")
            time.sleep(0.05)

    def stop(self) -> None:
        for child in reversed(self._children):
            child.terminate()
            if not child.wait(time.monotonic() + _STOP_SECONDS):
                child.kill()


@contextmanager
def both(folder: Path, model: Path) -> Iterator[tuple[Side, Side]]:
    """Runs ours and the bare side for the block; `model` is a folder with a chat model."""
    layout = Layout(folder)
    layout.prepare()
    running = _Processes(layout)
    try:
        port = free_port()
        broker = running.start(commands.broker(find_valkey(), port, layout))
        chain = _start_chain(running)
        running.until(lambda: probes.pong(port), "the broker")
        url = f"redis://{HOST}:{port}"
        bare = _start_bare(running, f"{url}/1", model)
        ours = _start_ours(running, chain, f"{url}/0", model)
        shared = [broker.pid]
        yield ours(shared), bare(shared)
    finally:
        running.stop()


Told = Callable[[list[int]], Side]


def _start_chain(running: _Processes) -> str:
    port = free_port()
    running.start(commands.chain(find_hardhat(ROOT), port, running.layout))
    return f"http://{HOST}:{port}"


def _start_bare(running: _Processes, broker_url: str, model: Path) -> Told:
    layout, port = running.layout, free_port()
    env = {
        bare_names.BROKER: broker_url,
        bare_names.MODEL: str(model),
        bare_names.DATABASE: str(layout.data_dir / "bare.db"),
        # A worker would otherwise compute on as many threads as there are cores.
        "OMP_NUM_THREADS": "1",
    }
    celery = ["celery", "-A", "tests.bench.bare_worker", "--quiet", "worker", "-Q", bare_names.QUEUE]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "WARNING"]
    pool = ["--pool", "threads", "--concurrency", "8"]
    serve = ["uvicorn", "tests.bench.bare_api:app", "--port", str(port), "--log-level", "warning"]
    children = [
        running.start(
            Command(
                name=name,
                argv=[sys.executable, "-m", *argv],
                cwd=ROOT,
                log=layout.log(name),
                env=env,
            )
        )
        for name, argv in (("bare-worker", celery + quiet + pool), ("bare-api", [*serve, "--no-access-log"]))
    ]
    url = f"http://{HOST}:{port}"

    def told(shared: list[int]) -> Side:
        client = redis.Redis.from_url(broker_url)
        running.until(lambda: bool(client.exists(bare_names.READY)), "the bare worker")
        running.until(lambda: probes.http_json(f"{url}/ready") is not None, "the bare API")
        pids = [child.pid for child in children]
        return Side(name="bare", url=url, model="any", key="none", processes=_count(pids, shared))

    return told


def _start_ours(running: _Processes, rpc_url: str, broker_url: str, model: Path) -> Told:
    layout = running.layout
    running.until(lambda: probes.rpc(rpc_url, "eth_chainId") is not None, "the chain")
    deployment = treasury.deploy_local(rpc_url, layout.deployment)
    client = ChainClient(rpc_url, deployment)
    buyer = treasury.buyers(1)[0]
    treasury.fund(client, [treasury.owner(0).address, buyer.address])
    where = commands.Addresses(rpc_url=rpc_url, gateway_port=free_port(), broker_url=broker_url)
    gateway = running.start(commands.gateway(where, layout, treasury.relayer().private_key, None, {}))
    priced = commands.Priced(
        model=str(model), price_per_job_atoms=1, price_in_per_million_atoms=0, price_out_per_million_atoms=0
    )
    node = running.start(
        commands.node(
            commands.NodePlan(_NODE, (priced,)),
            where,
            layout,
            owner_key=treasury.owner(0).private_key,
            models_dir=layout.home("models"),
            more=_SETTINGS,
        )
    )
    treasury.deposit(client, buyer, treasury.DEPOSIT_ATOMS)

    def told(shared: list[int]) -> Side:
        url = where.gateway_url
        running.until(lambda: probes.not_ready(url) == [] and probes.offered(url) > 0, "the node")
        opening = treasury.Opening(url, deployment, buyer)
        opening.create_key()
        opening.open([client.node_ids_of(treasury.owner(0).address)[-1]], treasury.SESSION_ATOMS)
        running.until(lambda: not any(opening.waiting()), "the session")
        name = probes.http_json(f"{url}/v1/models")["data"][0]["id"]
        processes = _count([gateway.pid, node.pid], shared)
        return Side(name="ours", url=url, model=name, key=opening.api_key, processes=processes)

    return told


def _count(roots: list[int], shared: list[int]) -> int:
    """Processes below these and the shared ones, themselves counted in."""
    return len(shared) + sum(1 + len(descendants(pid)) for pid in roots)
