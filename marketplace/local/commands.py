"""The command line and settings of each process of a local market."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from marketplace.local.child import Command
from marketplace.local.layout import Layout
from marketplace.local.ports import HOST
from marketplace.local.programs import Hardhat

CHAIN: Final = "chain"
BROKER: Final = "broker"
GATEWAY: Final = "gateway"
CHAT_MODEL: Final = "smollm2-135m-instruct"
EMBED_MODEL: Final = "all-minilm-l6-v2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Priced:
    """A model and what one node asks for it, in atoms; no `task`: it is offered for what it is made for."""

    model: str
    task: str = ""
    price_per_job_atoms: int
    price_in_per_million_atoms: int
    price_out_per_million_atoms: int
    max_latency_ms: int = 0
    late_discount_bps: int = 0


@dataclass(frozen=True, slots=True)
class NodePlan:
    """One demo provider. Every task has two of them, so that one can fail."""

    name: str
    models: tuple[Priced, ...]


def _priced(model: str, per_job: int, per_million_in: int, per_million_out: int) -> Priced:
    return Priced(
        model=model,
        price_per_job_atoms=per_job,
        price_in_per_million_atoms=per_million_in,
        price_out_per_million_atoms=per_million_out,
    )


NODES: Final = (
    NodePlan("node-1", (_priced(CHAT_MODEL, 20, 200_000, 800_000), _priced(EMBED_MODEL, 10, 40_000, 0))),
    NodePlan("node-2", (_priced(CHAT_MODEL, 10, 150_000, 600_000),)),
    NodePlan("node-3", (_priced(EMBED_MODEL, 5, 20_000, 0),)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """What the processes need to find each other."""

    rpc_url: str
    gateway_port: int
    broker_url: str

    @property
    def gateway_url(self) -> str:
        """The gateway as clients see it."""
        return f"http://{HOST}:{self.gateway_port}"


def chain(hardhat: Hardhat, port: int, layout: Layout) -> Command:
    """The development chain; its state ends with it."""
    argv = [str(hardhat.node), str(hardhat.script), "node", "--hostname", HOST, "--port", str(port)]
    quiet = {"HARDHAT_DISABLE_TELEMETRY_PROMPT": "true", "NO_COLOR": "1"}
    return Command(name=CHAIN, argv=argv, cwd=hardhat.root, log=layout.log(CHAIN), env=quiet)


def broker(server: Path, port: int, layout: Layout) -> Command:
    """Valkey, writing every second what it holds."""
    options = ["--bind", HOST, "--port", str(port), "--appendonly", "yes", "--appendfsync", "everysec"]
    # A title of its own would overwrite the environment by which a killed run's processes are found.
    options += ["--set-proc-title", "no"]
    argv = [str(server), *options, "--save", "", "--databases", "16"]
    return Command(name=BROKER, argv=argv, cwd=layout.home(BROKER), log=layout.log(BROKER), restart=True)


def gateway(
    where: Addresses, layout: Layout, relayer_key: str, database_url: str | None, more: Mapping[str, str]
) -> Command:
    """The gateway, with its loops inside. Settings in `more` win over these."""
    home = layout.home(GATEWAY)
    env = {
        "WATT_HOST": HOST,
        "WATT_PORT": str(where.gateway_port),
        "WATT_RPC_URL": where.rpc_url,
        "WATT_DEPLOYMENT_PATH": str(layout.deployment),
        "WATT_DATA_DIR": str(home),
        "WATT_DATABASE_URL": database_url or f"sqlite:///{home / 'market.db'}",
        "WATT_RELAYER_KEY": relayer_key,
        # Everything here is on this machine, receivers of webhooks too.
        "WATT_WEBHOOK_ALLOW_LOOPBACK": "true",
        **more,
    }
    argv = [sys.executable, "-m", "marketplace.main"]
    return Command(name=GATEWAY, argv=argv, cwd=home, log=layout.log(GATEWAY), env=env, restart=True)


def node(
    plan: NodePlan,
    where: Addresses,
    layout: Layout,
    *,
    owner_key: str,
    models_dir: Path,
    more: Mapping[str, str],
) -> Command:
    """One provider's node; it starts its Celery workers itself. Settings in `more` win over these."""
    home = layout.home(plan.name)
    env = {
        "WATT_NODE_RPC_URL": where.rpc_url,
        "WATT_NODE_DEPLOYMENT_PATH": str(layout.deployment),
        "WATT_NODE_GATEWAY_URL": where.gateway_url.replace("http", "ws", 1) + "/v1/link",
        "WATT_NODE_DATA_DIR": str(home),
        "WATT_NODE_MODELS_DIR": str(models_dir),
        "WATT_NODE_BROKER_URL": where.broker_url,
        "WATT_NODE_OWNER_KEY": owner_key,
        "WATT_NODE_MODELS": json.dumps([asdict(model) for model in plan.models]),
        "WATT_NODE_TORCH_THREADS": "1",
        # Three nodes on one machine: its memory is better used otherwise.
        "WATT_NODE_SPARE_WORKER": "false",
        # Gas is free here, so whoever watches sees each job paid within seconds.
        "WATT_NODE_SETTLE_MAX_AGE_MS": "2000",
        "WATT_NODE_SETTLE_EVERY_MS": "1000",
        **more,
    }
    argv = [sys.executable, "-m", "worker.main", "daemon"]
    return Command(name=plan.name, argv=argv, cwd=home, log=layout.log(plan.name), env=env, restart=True)
