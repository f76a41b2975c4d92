"""Settings of the gateway process, from the environment (`WATT_…`)."""

from __future__ import annotations

from pathlib import Path

from platformdirs import user_data_path
from pydantic import Field, SecretStr
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
    confirmations: int = Field(default=1, ge=1, description="Blocks until a transaction counts as final.")
    follow_every_ms: int = Field(default=500, ge=50, description="Pause between looks at the chain.")
    pump_every_ms: int = Field(default=250, ge=50, description="Pause between looks at the outbox.")
    clockwork_every_ms: int = Field(default=250, ge=50, description="Pause between looks at leases.")
    sweep_every_ms: int = Field(default=10_000, ge=100, description="Pause between sweeps of dead sessions.")
    pushed_every_ms: int = Field(
        default=3_000, ge=100, description="Pause between looks for payments that others sent to the token."
    )
    reconcile_every_ms: int = Field(default=60_000, ge=1_000, description="Pause between reconciliations.")
    max_lag_blocks: int = Field(default=20, ge=1, description="Follower lag above which /readyz says no.")
    log_level: str = Field(default="INFO", description="Least level that is logged.")

    @property
    def store_url(self) -> str:
        """The database to use."""
        return self.database_url or f"sqlite:///{self.data_dir / 'market.db'}"

    @property
    def deployment_file(self) -> Path:
        """The deployment file to use."""
        return self.deployment_path or self.data_dir / "deployment.json"
