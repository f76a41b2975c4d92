"""The execution annex: the canonical document behind a receipt's `execHash`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from marketplace.protocol.hexes import keccak
from marketplace.protocol.payloads import canonical_json

EnergyMethod = Literal["nvml", "rapl", "nvml+rapl", "model", "none"]


class Annex(BaseModel):
    """How a job was run. Times and energy are attested by the node, not proven."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    v: Literal[1] = 1
    trace_id: str
    model: str
    engine: str
    torch: str
    dtype: str
    seed: str
    units_in: int
    units_out: int
    finish: str
    device_microseconds: int
    energy_method: EnergyMethod

    def encode(self) -> bytes:
        """Canonical bytes, kept beside the receipt."""
        return canonical_json(self.model_dump(mode="json"))


def exec_hash(annex: bytes) -> bytes:
    """Keccak of the annex bytes."""
    return keccak(annex)
