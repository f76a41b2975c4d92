"""Which GPU a torch device is, as the management library knows it."""

from __future__ import annotations

import torch


def gpu_uuid(device: str) -> str | None:
    """UUID of a CUDA device, None for any other; the two sides number devices differently."""
    if torch.device(device).type != "cuda":
        return None
    return f"GPU-{torch.cuda.get_device_properties(device).uuid}"
