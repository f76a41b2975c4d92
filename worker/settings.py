"""Settings of one node; every process of it reads the same ones from `WATT_NODE_…`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, Self

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from marketplace.protocol.due import SettlePolicy
from worker.inference.engine import Upstream

PREFIX: Final = "WATT_NODE_"


# Fields of a model's entry that are no price.
NOT_PRICES: Final = frozenset({"model", "task", "server", "server_model", "pinned"})


class ModelPrice(BaseModel):
    """One model this node sells. Prices are atoms; `model` is a catalogue name or a directory.

    `server` is the address of an OpenAI-compatible server that runs the model's files in place of this node.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(min_length=1, description="Catalogue name, folder with safetensors, or hub id.")
    task: str = Field(default="", description="What it is offered for; empty: what it is made for.")
    server: str = Field(
        default="",
        pattern="^(https?://.+)?$",
        description="http(s)://…/v1 of a server that runs it; empty: this node.",
    )
    server_model: str = Field(default="", description="Its name at that server; empty: the first listed.")
    price_per_job_atoms: int = Field(default=0, ge=0, description="Base price of a job.")
    price_in_per_million_atoms: int = Field(default=0, ge=0, description="Price of a million input tokens.")
    price_out_per_million_atoms: int = Field(default=0, ge=0, description="Price of a million output tokens.")
    max_latency_ms: int = Field(default=0, ge=0, lt=1 << 32, description="Latency promise; 0: none.")
    late_discount_bps: int = Field(default=0, ge=0, le=10_000, description="Discount when the promise fails.")
    pinned: bool = Field(default=False, description="Never leaves memory for another model.")


class NodeSettings(BaseSettings):
    """Everything a node can be told."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    data_dir: Path = Field(
        default_factory=lambda: Path(platformdirs.user_data_dir("wattline")) / "node",
        description="Ledger, keys, broker queue and run files; one node each.",
    )
    rpc_url: str = Field(default="http://127.0.0.1:8545", description="JSON-RPC endpoint of the chain.")
    deployment_path: Path = Field(default=Path("deployment.json"), description="Where the contracts are.")
    gateway_url: str = Field(
        default="ws://127.0.0.1:8402/v1/link", description="Gateways to link to, comma-separated."
    )
    owner_key: SecretStr | None = Field(
        default=None, description="Provider's key, 0x-hex; only the daemon uses it, to register and stake."
    )
    signing_key: SecretStr | None = Field(
        default=None, description="Signs receipts and offers; made and kept in data_dir/keys when unset."
    )
    settler_key: SecretStr | None = Field(
        default=None, description="Sends settlements; made and kept in data_dir/keys when unset."
    )
    encryption_key: SecretStr | None = Field(
        default=None, description="X25519 secret of the node; made and kept in data_dir/keys when unset."
    )
    stake_atoms: int = Field(default=0, ge=0, description="Least stake; never below the registry's minimum.")
    uri: str = Field(default="", max_length=512, description="Where the node describes itself, on-chain.")
    models: tuple[ModelPrice, ...] = Field(default=(), description="Models and prices, as a JSON list.")
    server_key: SecretStr | None = Field(
        default=None, description="Bearer key of the servers named in models, if they want one."
    )
    server_stall_ms: int = Field(
        default=60_000, ge=100, description="A server silent for this long has failed; the job is retried."
    )
    models_dir: Path | None = Field(default=None, description="Model files; data_dir/models when unset.")
    model_memory_mib: int = Field(
        default=0, ge=0, description="Memory for models; the one unused for longest makes room. 0: no bound."
    )
    rehash_seconds: int = Field(
        default=3_600, ge=0, description="Hashes the files of served models again this often; 0: never."
    )
    torch_threads: int = Field(
        default=0, ge=0, description="Torch threads of each engine; 0: what a trial at its start finds fast."
    )
    memory_percent: int = Field(
        default=50, ge=1, le=95, description="Share of free memory for an engine's keys and values."
    )
    milliwatts_per_core: int = Field(
        default=0, ge=0, description="Declared draw of a busy core where no counter can be read."
    )
    slots: int = Field(
        default=8,
        ge=1,
        le=256,
        description="Jobs that run at the same time; an eighth more is claimed ahead.",
    )
    queue_limit: int = Field(default=64, ge=0, description="Accepted jobs that may wait for a slot.")
    max_job_seconds: int = Field(default=900, ge=1, description="Latest deadline accepted, from now.")
    deadline_margin_ms: int = Field(default=250, ge=0, description="Engines stop this long before it.")
    max_attempts: int = Field(default=3, ge=1, description="Crashed attempts after which a job fails.")
    worker_lease_ms: int = Field(
        default=10_000, ge=400, description="A worker that is silent for this long loses its jobs."
    )
    stuck_seconds: int = Field(
        default=300, ge=0, description="A worker whose engine takes longer for one step is ended; 0: never."
    )
    spare_worker: bool = Field(
        default=True,
        description="Keep a second worker that has imported everything but no model, to take over at once.",
    )
    metrics_port: int = Field(
        default=0, ge=-1, le=65_535, description="/metrics on loopback; 0: any free port, -1: nowhere."
    )
    publish_every_ms: int = Field(
        default=50, ge=0, description="Chunks of all jobs are stored and sent together this often, at most."
    )
    hand_over_ms: int = Field(
        default=3_000,
        ge=0,
        description="A worker asked to stop lets jobs end for this long, then hands over.",
    )
    max_unacknowledged_atoms: int = Field(
        default=5_000_000, ge=0, description="Delivered or running without a voucher, in one session."
    )
    max_total_unacknowledged_atoms: int = Field(
        default=100_000_000, ge=0, description="The same over all sessions of the node."
    )
    offer_valid_seconds: int = Field(default=600, ge=20, description="Life of an offer; renewed at half.")
    session_max_age_ms: int = Field(default=30_000, ge=0, description="Age at which a session is read anew.")
    settle_min_total_atoms: int = Field(
        default=1_000_000, ge=1, description="Settle once all vouchers together add this much."
    )
    settle_max_age_ms: int = Field(
        default=600_000, ge=0, description="Settle once the oldest voucher is this old."
    )
    settle_expiry_margin_seconds: int = Field(
        default=600, ge=0, description="Settle when a session ends within this."
    )
    settle_every_ms: int = Field(default=15_000, ge=100, description="How often to look for dues.")
    collect_min_atoms: int = Field(
        default=10_000_000, ge=0, description="Collect once earnings reach this; 0: never."
    )
    claim_min_atoms: int = Field(
        default=100_000,
        ge=0,
        description="Claim what an expired session owes without a voucher from this sum on; 0: never.",
    )
    claim_margin_seconds: int = Field(
        default=30, ge=0, description="Claim this long before a session's grace is over, or not at all."
    )
    confirmations: int = Field(default=1, ge=1, description="Blocks until a transaction counts as final.")
    broker_url: SecretStr | None = Field(
        default=None, description="redis:// or amqp:// broker; the bundled Valkey when unset."
    )
    queue: str = Field(
        default="", description="Prefix of the Celery queues; from the signing key when unset."
    )
    ledger_url: SecretStr | None = Field(
        default=None, description="sqlite:/// or postgresql://; a file in data_dir when unset."
    )
    poll_ms: int = Field(default=1_000, ge=10, description="Looks for chunks the broker gave no hint of.")
    reconcile_every_ms: int = Field(default=1_000, ge=50, description="How often lost tasks are looked for.")
    task_resend_ms: int = Field(default=15_000, ge=100, description="A task nobody took is sent again then.")
    start_seconds: int = Field(default=900, ge=1, description="Time for models to be fetched and loaded.")
    stop_seconds: int = Field(default=20, ge=0, description="A stop waits this long for jobs, then settling.")
    drain_seconds: int = Field(default=600, ge=0, description="A drain waits this long for jobs.")
    log_level: str = Field(default="INFO", description="Least level that is logged.")

    @field_validator("gateway_url")
    @classmethod
    def _check_gateways(cls, value: str) -> str:
        for url in value.split(","):
            if not url.strip().startswith(("ws://", "wss://")):
                raise ValueError(f"a gateway URL starts with ws:// or wss://, got {url.strip()!r}")
        return value

    @property
    def gateways(self) -> tuple[str, ...]:
        """Links of the gateways."""
        return tuple(dict.fromkeys(url.strip() for url in self.gateway_url.split(",")))

    @property
    def ledger(self) -> str:
        """URL of the ledger; its folder exists."""
        if self.ledger_url is not None:
            return self.ledger_url.get_secret_value()
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        return f"sqlite:///{self.data_dir.resolve() / 'ledger.db'}"

    @property
    def models_home(self) -> Path:
        """Folder of model files."""
        return self.models_dir or self.data_dir / "model-files"

    @property
    def policy(self) -> SettlePolicy:
        """When vouchers are worth a transaction."""
        return SettlePolicy(
            min_total_atoms=self.settle_min_total_atoms,
            max_age_ms=self.settle_max_age_ms,
            expiry_margin_seconds=self.settle_expiry_margin_seconds,
        )

    def upstreams(self) -> dict[str, Upstream]:
        """Servers of the models that are not run here, by the models' names."""
        key = self.server_key.get_secret_value() if self.server_key else ""
        return {
            price.model: Upstream(
                url=price.server, model=price.server_model, key=key, stall_ms=self.server_stall_ms
            )
            for price in self.models
            if price.server
        }

    def given_keys(self) -> dict[str, str | None]:
        """The node's secrets that were set, by name."""
        named = {
            "signing": self.signing_key,
            "settler": self.settler_key,
            "encryption": self.encryption_key,
        }
        return {name: key.get_secret_value() if key else None for name, key in named.items()}

    def environment(self) -> dict[str, str]:
        """Environment by which a child process reads these very settings; the owner's key stays here."""
        values = self.model_dump(mode="json", exclude={"owner_key"}, exclude_none=True)
        return {PREFIX + name.upper(): _text(self, name, value) for name, value in values.items()}

    @classmethod
    def read(cls, **overrides: Any) -> Self:
        """Settings of the environment; overrides that are None are left out."""
        return cls(**{name: value for name, value in overrides.items() if value is not None})


def _text(settings: NodeSettings, name: str, value: Any) -> str:
    original = getattr(settings, name)
    if isinstance(original, SecretStr):
        return original.get_secret_value()
    return json.dumps(value) if isinstance(value, list | dict | bool) else str(value)
