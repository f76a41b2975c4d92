"""Fingerprints of hidden states: a few numbers that tell one model from another on any hardware.

A random projection to 16 numbers keeps distances well enough to see int8 weights (Activation-DiFR,
arXiv 2511.20621). The projection is fixed and public: it hides nothing and must not.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
import torch
from torch import Tensor

from worker.proofs.sampling import Floats, hash_bits

NUMBERS: Final = 16
# Every fourth token carries one, the first of each block always: 8 bytes a token.
EVERY: Final = 4
SCHEME: Final = "blocks32/sign16/every4"
_SEED: Final = 0x57415454
_MOST: Final = float(np.finfo(np.float16).max)
_BYTES: Final = 2 * NUMBERS


def fingerprint(hidden: Tensor) -> bytes:
    """Fingerprint of the hidden states of one block, `(tokens, width)`; little-endian float16."""
    return to_bytes(project(hidden[::EVERY]))


def project(rows: Tensor) -> Floats:
    """Projection of each row, `(rows, 16)`; as long as the row itself on average."""
    # In double precision the order of summation never shows in the half that is kept.
    projected: Floats = (rows.double() @ _signs(rows.shape[-1])).cpu().numpy() / NUMBERS**0.5
    return projected


def to_bytes(projected: Floats) -> bytes:
    """Numbers as they are committed to."""
    return np.clip(projected, -_MOST, _MOST).astype("<f2").tobytes()


def from_bytes(data: bytes) -> Floats:
    """Numbers of a block, `(fingerprinted tokens, 16)`. Raises `ValueError` for another length."""
    if len(data) % _BYTES:
        raise ValueError(f"a fingerprint has a multiple of {_BYTES} bytes, not {len(data)}")
    return np.frombuffer(data, dtype="<f2").reshape(-1, NUMBERS).astype(np.float64)


def distances(claimed: Floats, own: Floats) -> Floats:
    """How far each claimed row is from ours, as a share of our row's length; infinite for no numbers."""
    length = np.maximum(np.linalg.norm(own, axis=1), 1e-9)
    with np.errstate(invalid="ignore"):
        found = np.linalg.norm(claimed - own, axis=1) / length
    # NaN is above no limit, so it would pass every one.
    return np.where(np.isnan(found), np.inf, found)


@lru_cache(maxsize=8)
def _signs(width: int) -> Tensor:
    ids = np.arange(width * NUMBERS, dtype=np.int64)
    signs = np.where(hash_bits(_SEED, 0, ids) & np.uint32(1), 1.0, -1.0)
    return torch.from_numpy(signs.reshape(width, NUMBERS))
