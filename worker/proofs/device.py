"""Classes of devices: two of one class give the same bits for the same code."""

from __future__ import annotations

from typing import Final

import torch

# From the strongest: what torch's matrix products in bfloat16 are made of.
_CPU: Final = (("amx_bf16", "amx"), ("avx512_bf16", "avx512bf16"), ("avx512_f", "avx512"), ("avx2", "avx2"))


def device_class(device: str) -> str:
    """Class of a torch device, such as `cpu/amx` or `cuda/NVIDIA H100`."""
    kind = torch.device(device).type
    if kind == "cuda":
        return f"cuda/{torch.cuda.get_device_name(torch.device(device))}"
    if kind != "cpu":
        return kind
    has = torch.cpu.get_capabilities()
    return "cpu/" + next((name for flag, name in _CPU if has.get(flag)), str(has.get("architecture")))
