"""What fits this machine: memory for keys and values, and threads, found when an engine starts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import psutil
import torch

_CGROUP: Final = Path("/sys/fs/cgroup")
# A thread more must bring so much: cores are shared with other engines and the rest of the node.
_WORTH: Final = 1.25
_ROUNDS: Final = 3
# Slabs double when they fill up, and lengths are padded: memory taken stays below twice what is counted.
_SLACK: Final = 2


def free_bytes(device: str, cgroup: Path = _CGROUP) -> int:
    """Memory of the device that nobody uses, within the limits of a container."""
    if torch.device(device).type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return min([int(psutil.virtual_memory().available), *_left(cgroup)])


def token_budget(bytes_per_token: int, free: int, *, percent: int) -> int:
    """Cache positions that fit in a share of the free memory."""
    return free * percent // 100 // (bytes_per_token * _SLACK)


def best_threads(
    step: Callable[[], object], *, cores: int, clock: Callable[[], float] = time.perf_counter
) -> int:
    """Threads with which `step` is fast, each doubling worth it; sets and returns them.

    Never more than `cores`. The fastest of a few rounds counts, so that a neighbour's burst does not decide.
    """
    best, taken = 1, _fastest(step, 1, clock)
    threads = 2
    while threads <= cores:
        again = _fastest(step, threads, clock)
        if again * _WORTH > taken:
            break
        best, taken = threads, again
        threads *= 2
    torch.set_num_threads(best)
    return best


def usable_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _fastest(step: Callable[[], object], threads: int, clock: Callable[[], float]) -> float:
    torch.set_num_threads(threads)
    step()
    taken = []
    for _ in range(_ROUNDS):
        begin = clock()
        step()
        taken.append(clock() - begin)
    return min(taken)


def _left(cgroup: Path) -> list[int]:
    """What a container's limit leaves, if there is one (cgroup v2)."""
    try:
        most = (cgroup / "memory.max").read_text().strip()
        used = int((cgroup / "memory.current").read_text())
    except OSError:
        return []
    return [] if most == "max" else [max(0, int(most) - used)]
