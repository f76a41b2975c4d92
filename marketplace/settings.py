"""Settings of the gateway process, from the environment (`WATT_…`)."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

from platformdirs import user_data_path
from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Frozen; every unit is in a name."""

    model_config = SettingsConfigDict(env_prefix="WATT_", frozen=True, extra="ignore")

    data_dir: Path = Field(
        default_factory=lambda: user_data_path("wattline"), description="Where the gateway keeps its files."
    )
    database_url: str | None = Field(
        default=None, description="sqlite:///… or postgresql://…; SQLite in data_dir when unset."
    )
    deployment_path: Path | None = Field(
        default=None, description="Deployment file; deployment.json in data_dir when unset."
    )
    rpc_url: str = Field(default="http://127.0.0.1:8545", description="JSON-RPC endpoint of the chain.")
    relayer_key: SecretStr = Field(description="Private key (0x-hex) that pays gas of buyers' transactions.")
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8402, ge=1, le=65_535, description="Port to listen on.")
    lease_ms: int = Field(default=10_000, ge=1_000, description="A node keeps an order this long unheard.")
    heartbeat_ms: int = Field(default=2_000, ge=100, description="How often nodes shall say they are alive.")
    job_timeout_ms: int = Field(
        default=120_000, ge=1_000, le=900_000, description="Deadline of a bearer call."
    )
    delivery_grace_ms: int = Field(
        default=1_500, ge=0, description="How long past its deadline a receipt may still arrive."
    )
    x402: bool = Field(default=True, description="Whether calls without a key are sold by x402.")
    x402_window_seconds: int = Field(
        default=60, ge=10, le=600, description="How long a quote to somebody without a key can be paid."
    )
    max_body_bytes: int = Field(default=1 << 20, ge=1_024, description="Largest request body.")
    max_body_depth: int = Field(default=64, ge=8, le=200, description="Deepest nesting of a JSON body.")
    body_timeout_ms: int = Field(
        default=15_000, ge=100, description="Time for a whole request body to arrive."
    )
    calls_per_minute_by_key: int = Field(
        default=12_000, ge=0, description="Most calls by one bearer key; 0: any number."
    )
    calls_per_minute_by_address: int = Field(
        default=60_000, ge=0, description="Most calls by one address; 0: any number."
    )
    rate_store_url: SecretStr = Field(
        default=SecretStr("memory://"),
        description="Where calls are counted: memory://, or redis://… or valkey://… shared by gateways.",
    )
    trusted_proxies: str = Field(
        default="", description="Networks, as 10.0.0.0/8, whose X-Forwarded-For is believed; between commas."
    )
    max_file_bytes: int = Field(default=32 << 20, ge=1_024, description="Largest file of requests.")
    max_file_lines: int = Field(default=10_000, ge=1, description="Most lines of a file of requests.")
    max_kept_bytes: int = Field(
        default=256 << 20, ge=1_024, description="Most bytes the files of one key take up."
    )
    max_unfinished_batches: int = Field(default=20, ge=1, description="Most batches of one key at a time.")
    batch_jobs_in_flight: int = Field(
        default=16, ge=1, description="Jobs of all batches together that nodes have at a time."
    )
    confirmations: int = Field(default=1, ge=1, description="Blocks until a transaction counts as final.")
    follow_every_ms: int = Field(default=500, ge=50, description="Pause between looks at the chain.")
    pump_every_ms: int = Field(default=250, ge=50, description="Pause between looks at the outbox.")
    clockwork_every_ms: int = Field(default=250, ge=50, description="Pause between looks at leases.")
    batches_every_ms: int = Field(default=250, ge=50, description="Pause between looks at batches.")
    sweep_every_ms: int = Field(default=10_000, ge=100, description="Pause between sweeps of dead sessions.")
    pushed_every_ms: int = Field(
        default=3_000, ge=100, description="Pause between looks for payments that others sent to the token."
    )
    reconcile_every_ms: int = Field(default=60_000, ge=1_000, description="Pause between reconciliations.")
    keep_content_seconds: int = Field(
        default=86_400, ge=300, description="How long input and output are kept unless a buyer chooses."
    )
    keep_content_most_seconds: int = Field(
        default=2_592_000, ge=300, description="The longest a buyer can have them kept."
    )
    webhooks_every_ms: int = Field(default=500, ge=50, description="Pause between looks at webhooks.")
    webhook_timeout_ms: int = Field(
        default=10_000, ge=100, le=60_000, description="Longest sending of one webhook message."
    )
    webhook_allow_loopback: bool = Field(
        default=False, description="Whether webhooks may point to this machine; for local development."
    )
    max_lag_blocks: int = Field(default=20, ge=1, description="Follower lag above which /readyz says no.")
    log_level: str = Field(default="INFO", description="Least level that is logged.")

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, text: str) -> str:
        for part in filter(None, map(str.strip, text.split(","))):
            ip_network(part)
        return text

    @property
    def store_url(self) -> str:
        """The database to use."""
        return self.database_url or f"sqlite:///{self.data_dir / 'market.db'}"

    @property
    def deployment_file(self) -> Path:
        """The deployment file to use."""
        return self.deployment_path or self.data_dir / "deployment.json"
