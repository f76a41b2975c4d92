"""Where the files of a local market are."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# What belongs to one chain: a buyer's journal names sessions that end with it.
_OURS: Final = {
    "broker",
    "client.db",
    "demo-journal.db",
    "deployment.json",
    "gateway",
    "logs",
    "market.json",
    "receipts",
}


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths below one data folder."""

    data_dir: Path

    @property
    def market(self) -> Path:
        """Addresses, keys and process ids of the running market; readable by its owner only."""
        return self.data_dir / "market.json"

    @property
    def deployment(self) -> Path:
        """Where the contracts are."""
        return self.data_dir / "deployment.json"

    @property
    def run(self) -> Path:
        """Mark of the running processes, so that a run that was killed can be cleaned up after."""
        return self.data_dir / "run-id"

    @property
    def lock(self) -> Path:
        """Held by the one supervisor of this folder."""
        return self.data_dir / "up.lock"

    @property
    def previous(self) -> Path:
        """The last run's data, once its chain is gone."""
        return self.data_dir / "previous"

    def home(self, name: str) -> Path:
        """Folder of one process."""
        return self.data_dir / name

    def log(self, name: str) -> Path:
        """Log of one process."""
        return self.data_dir / "logs" / f"{name}.log"

    def prepare(self) -> None:
        """Creates the folders; keys live here, so nobody else may look in."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self.data_dir.chmod(0o700)
        (self.data_dir / "logs").mkdir(exist_ok=True)

    def has_run_before(self) -> bool:
        """Whether a former run left data that belongs to its chain."""
        return self.deployment.exists()

    def set_aside(self) -> Path:
        """Moves a former run's chain-bound data to `previous`, replacing what was there."""
        shutil.rmtree(self.previous, ignore_errors=True)
        self.previous.mkdir()
        for item in sorted(self.data_dir.iterdir()):
            if item.name in _OURS or item.name.startswith("node-"):
                item.rename(self.previous / item.name)
        self.prepare()
        return self.previous
