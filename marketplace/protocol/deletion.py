"""The record a gateway signs when it deletes a job's input and output."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from marketplace.protocol.canonical import canonical_json
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.hexes import from_hex, keccak
from marketplace.protocol.signing import BadSignature, Signer, recover

VERSION: Final = 1
KIND: Final = "wattline.deletion"
ASKED: Final = "asked"
EXPIRED: Final = "expired"
# No other signature is over bytes that begin like this.
_PREFIX: Final = b"wattline deletion\0"
_TEXTS: Final = ("job_id", "key", "reason", "escrow")
_NUMBERS: Final = ("deleted_at_ms", "chain_id")
_LISTS: Final = ("order_hashes", "receipt_ids")


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """What was deleted: input and output of a job, with salts and annexes of its orders.

    Attributes:
        key: whose job it was.
        reason: `asked` by its key, or `expired`: the time it was to be kept was over.
    """

    job_id: str
    key: str
    order_hashes: tuple[str, ...]
    receipt_ids: tuple[str, ...]
    reason: str
    deleted_at_ms: int
    chain_id: int
    escrow: str

    def encode(self) -> bytes:
        """Canonical bytes; these are signed."""
        return canonical_json({"v": VERSION, "kind": KIND} | asdict(self))

    @classmethod
    def decode(cls, record: bytes) -> Self:
        """A record of its bytes. Raises `BadRequest`."""
        try:
            data = json.loads(record)
        except ValueError as error:
            raise _bad("it is not JSON") from error
        if not isinstance(data, dict) or (data.pop("v", None), data.pop("kind", None)) != (VERSION, KIND):
            raise _bad(f"it is none of version {VERSION}")
        if set(data) != {*_TEXTS, *_NUMBERS, *_LISTS}:
            raise _bad("it has other fields")
        fits = (
            all(isinstance(data[name], str) for name in _TEXTS)
            and all(type(data[name]) is int for name in _NUMBERS)
            and all(_is_texts(data[name]) for name in _LISTS)
        )
        if not fits:
            raise _bad("a field has another type")
        values: dict[str, Any] = data | {name: tuple(data[name]) for name in _LISTS}
        return cls(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedDeletion:
    """A record as a gateway shows it."""

    deletion: Deletion
    record: bytes
    signature: bytes
    claimed_signer: str

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """A record of `deletion` in a job's view, or of such a view. Raises `BadRequest`."""
        shown = data.get("deletion", data) if isinstance(data, dict) else None
        if not isinstance(shown, dict):
            raise _bad("the job's content was not deleted, or this is no job")
        try:
            record, signature = str(shown["record"]).encode(), from_hex(str(shown["signature"]), 65)
            claimed = str(shown["signer"])
        except (KeyError, ValueError) as error:
            raise _bad(f"{error}") from error
        return cls(
            deletion=Deletion.decode(record), record=record, signature=signature, claimed_signer=claimed
        )

    def signer(self) -> str | None:
        """Address that signed the record; None when nobody can have."""
        try:
            return recover(digest(self.record), self.signature)
        except BadSignature:
            return None


def digest(record: bytes) -> bytes:
    """What is signed."""
    return keccak(_PREFIX + record)


def sign(record: bytes, signer: Signer) -> bytes:
    """A gateway's signature of a record."""
    return signer.sign_digest(digest(record))


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _bad(why: str) -> BadRequest:
    return BadRequest(ErrorCode.INVALID_REQUEST, f"not a record of a deletion: {why}")
