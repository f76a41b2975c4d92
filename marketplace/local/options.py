"""What `watt up` can be told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

DEFAULT_PORT: Final = 8402


class Style(StrEnum):
    """How progress is shown."""

    AUTO = "auto"
    PLAIN = "plain"
    JSON = "json"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpOptions:
    """One run of the local market.

    Attributes:
        data_dir: everything a run writes, except model weights.
        models_dir: weights; kept between runs and shared by all nodes.
        port: of the gateway; None takes 8402, or a free one when that is taken.
        root: checkout with `hardhat.config.js` and `node_modules`; None looks for it.
        start_seconds: longest wait for one step.
        grace_seconds: time to stop in peace before a process is killed.
        database_url: of the gateway, empty at each start, for the chain forgets; None is SQLite in data_dir.
        node_settings: more `WATT_NODE_…` settings for every node; they win over the built-in ones.
        gateway_settings: likewise more `WATT_…` settings for the gateway.
        broker_url: of all nodes, as in `amqp://…`; None starts the bundled Valkey.
    """

    data_dir: Path
    models_dir: Path
    port: int | None = None
    root: Path | None = None
    style: Style = Style.AUTO
    start_seconds: int = 600
    grace_seconds: int = 40
    database_url: str | None = None
    broker_url: str | None = None
    node_settings: Mapping[str, str] = field(default_factory=dict)
    gateway_settings: Mapping[str, str] = field(default_factory=dict)
