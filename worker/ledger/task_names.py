"""Names of the tasks between the node's processes. Their messages carry ids only."""

from __future__ import annotations

from typing import Final

EXECUTE: Final = "worker.execute"
SETTLE: Final = "worker.settle"


def infer_queue(queue: str) -> str:
    """Queue of the processes that run models."""
    return f"{queue}.infer"


def settle_queue(queue: str) -> str:
    """Queue of the one process that owns the settler's key."""
    return f"{queue}.settle"
