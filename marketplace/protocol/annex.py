"""The execution annex: the canonical document behind a receipt's `execHash`.

Version 2 says all that an auditor needs to compute the answer again: profile, sampling, token ids, and the
root of what the model computed. Version 1 is read for receipts signed before.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, model_validator

from marketplace.protocol.hexes import ZERO32, keccak, to_hex
from marketplace.protocol.payloads import canonical_json
from marketplace.protocol.trace import unpack_tokens

EnergyMethod = Literal["nvml", "rapl", "nvml+rapl", "model", "none"]
Hash32 = Annotated[str, StringConstraints(pattern="^0x[0-9a-f]{64}$")]
NO_TRACE: Final = to_hex(ZERO32)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    def encode(self) -> bytes:
        """Canonical bytes."""
        return canonical_json(self.model_dump(mode="json"))


class Profile(_Strict):
    """What decides a result beside model, request and seed (PROTOCOL §7).

    Attributes:
        engine: Name and version of the engine's code.
        torch: Version of torch.
        dtype: Element type of weights and activations.
        tile_rows: Rows of every matrix product while generating; 0: as it comes, not reproducible.
        prompt_block: Prompt tokens computed at once; 0: no prompts.
        threads: Threads that compute: prompts round otherwise on another number; 0: not said.
        sampler: Name and version of how tokens are drawn.
        trace: How blocks and fingerprints of the trace are made; empty: none are.
        template: SHA-256 of the chat template, hex; empty: none.
        device: Class of devices that give the same bits.
        context_tokens: Longest prompt and answer together, which cuts answers; 0: not said.
        calibration: Keccak of the calibration file that limits were taken from; empty: none.
    """

    engine: str = ""
    torch: str = ""
    dtype: str = ""
    tile_rows: int = 0
    prompt_block: int = 0
    threads: int = 0
    sampler: str = ""
    trace: str = ""
    template: str = ""
    device: str = ""
    context_tokens: int = 0
    calibration: str = ""

    def digest(self) -> bytes:
        """Keccak of the canonical bytes."""
        return _digest(self)


@lru_cache(maxsize=64)
def _digest(profile: Profile) -> bytes:
    # A node signs thousands of receipts of a few profiles.
    return keccak(profile.encode())


class Sampling(_Strict):
    """How tokens were drawn. `max_tokens` is the request's, clipped to what the context leaves."""

    temperature_milli: int
    top_p_milli: int
    max_tokens: int


class _Common(_Strict):
    trace_id: str
    model: str
    seed: str
    units_in: int
    units_out: int
    finish: str
    device_microseconds: int
    energy_method: EnergyMethod


class AnnexV1(_Common):
    """The first version: without a trace; nothing in it can be computed again."""

    v: Literal[1] = 1
    engine: str
    torch: str
    dtype: str


class Annex(_Common):
    """How a job was run. Times and energy are attested by the node, not proven.

    Attributes:
        profile_hash: Digest of `profile`.
        sampling: None for work that draws nothing, and for failed work.
        token_ids: The answer's, packed (`trace.pack_tokens`); the end token is one of them.
        trace_root: Root over the trace's blocks; zero without a trace.
    """

    v: Literal[2] = 2
    profile: Profile
    profile_hash: Hash32
    sampling: Sampling | None
    token_ids: str
    trace_root: Hash32

    @property
    def engine(self) -> str:
        """Name and version of the engine's code."""
        return self.profile.engine

    @property
    def torch(self) -> str:
        """Version of torch."""
        return self.profile.torch

    @property
    def dtype(self) -> str:
        """Element type of weights and activations."""
        return self.profile.dtype

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.profile_hash != to_hex(self.profile.digest()):
            raise ValueError("profile_hash is of another profile")
        unpack_tokens(self.token_ids)
        return self


AnyAnnex = Annex | AnnexV1
_ADAPTER: TypeAdapter[AnyAnnex] = TypeAdapter(Annotated[AnyAnnex, Field(discriminator="v")])


def read_annex(data: bytes) -> AnyAnnex:
    """Annex of its bytes, of any version. Raises `ValueError`."""
    return _ADAPTER.validate_json(data)


def exec_hash(annex: bytes) -> bytes:
    """Keccak of the annex bytes."""
    return keccak(annex)
