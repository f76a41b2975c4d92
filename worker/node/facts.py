"""What the node's processes tell each other through the ledger's notes and one file."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.hexes import from_hex, to_hex
from worker.ledger import Ledger
from worker.node.offers import ServedModel

_NODE_ID: Final = "node_id"
_DRAIN: Final = "drain"
_SETTLED: Final = "settle.done"
INFER: Final = "infer"
SETTLE: Final = "settle"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningDaemon:
    """How to reach the daemon of a data directory."""

    pid: int
    broker_url: str
    queue: str
    metrics_port: int = 0


class Notes:
    """Typed view of the ledger's notes."""

    def __init__(self, ledger: Ledger) -> None:
        self._notes = ledger.notes

    @property
    def node_id(self) -> int | None:
        """This node's id, once it is registered."""
        text = self._notes.get(_NODE_ID)
        return None if text is None else int(text)

    def set_node_id(self, node_id: int) -> None:
        """Remembers the id."""
        self._notes.put(_NODE_ID, str(node_id))

    def report_ready(self, role: str, pid: int, models: Sequence[ServedModel] = ()) -> None:
        """A worker process says that it takes tasks, and which models it has loaded."""
        listed = [
            {
                "source": model.source,
                "model_id": to_hex(model.model_id),
                "name": model.name,
                "task": model.task,
                "context_tokens": model.context_tokens,
                "canary_bps": model.canary_bps,
                "offered": model.offered,
            }
            for model in models
        ]
        self._notes.put_json(f"ready.{role}", {"pid": pid, "models": listed})

    def ready_pid(self, role: str) -> int | None:
        """Process that last said it was ready."""
        found = self._notes.get_json(f"ready.{role}")
        return int(found["pid"]) if found else None

    def served(self) -> list[ServedModel]:
        """Models of the infer process that last became ready."""
        found: dict[str, Any] = self._notes.get_json(f"ready.{INFER}") or {"models": []}
        return [
            ServedModel(**fields | {"model_id": from_hex(fields["model_id"], 32)})
            for fields in found["models"]
        ]

    @property
    def draining(self) -> bool:
        """Whether the node was asked to take no more orders and stop."""
        return self._notes.get(_DRAIN) is not None

    def ask_drain(self) -> None:
        """Asks the daemon to drain and stop."""
        self._notes.put(_DRAIN, "1")

    def clear_drain(self) -> None:
        """A daemon that starts has not been asked yet."""
        if self.draining:
            self._notes.remove(_DRAIN)

    def report_settled(self, request: str) -> None:
        """The settle process finished a named request."""
        self._notes.put(_SETTLED, request)

    def settled(self, request: str) -> bool:
        """Whether a named request was the last one finished."""
        return self._notes.get(_SETTLED) == request


def write_running(path: Path, running: RunningDaemon) -> None:
    """Leaves word of this daemon, for its owner only: the broker's password is in it."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(asdict(running), file)


def read_running(path: Path) -> RunningDaemon:
    """The daemon of a data directory.

    Raises:
        BadRequest: none runs.
    """
    try:
        running = RunningDaemon(**json.loads(path.read_text()))
        os.kill(running.pid, 0)
    except (OSError, ValueError, TypeError) as error:
        raise BadRequest(ErrorCode.NOT_READY, "no daemon runs here; start it: watt node start") from error
    return running
