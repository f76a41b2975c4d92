"""Typed messages whose EIP-712 type string is derived from their fields.

A message's canonical bytes are `abi.encode(struct)`: every field is static, so they are one 32-byte word a
field. Those bytes are what is hashed, signed, stored and verified (source: EIP-712, PROTOCOL §3).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Annotated, Any, ClassVar, Protocol, Self, get_args, get_origin, get_type_hints

from marketplace.protocol.hexes import checksum, from_hex, keccak, to_hex

WORD = 32


@dataclass(frozen=True, slots=True)
class Field:
    """How one dataclass field appears in the signed struct: Solidity type and name.

    `bits` is the width of an unsigned integer, 0 for other kinds.
    """

    kind: str
    name: str
    bits: int


def eip(kind: str, name: str) -> Field:
    """Marks the Solidity type and name of a message field."""
    return Field(kind, name, int(kind[4:]) if kind.startswith("uint") else 0)


@dataclass(frozen=True, slots=True)
class Domain:
    """The chain and escrow a signature is valid for."""

    chain_id: int
    escrow: str

    def separator(self) -> bytes:
        """EIP-712 domain separator of ("Wattline", "1", chainId, escrow)."""
        return separator_of("Wattline", "1", self.chain_id, self.escrow)


class AnyDomain(Protocol):
    """The escrow's domain, or another contract's."""

    def separator(self) -> bytes:
        """EIP-712 domain separator."""


@functools.lru_cache(maxsize=64)
def separator_of(name: str, version: str, chain_id: int, contract: str) -> bytes:
    """EIP-712 domain separator of a domain with these four fields."""
    kind = keccak(b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
    words = (kind, keccak(name.encode()), keccak(version.encode()), chain_id.to_bytes(WORD, "big"))
    return keccak(b"".join(words) + from_hex(contract, 20).rjust(WORD, b"\0"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """Base of all signed messages; refuses values that do not fit their field."""

    TYPE: ClassVar[str]
    # Its canonical bytes, once they are known: they are hashed where it is signed, stored and checked.
    _encoded: bytes = dataclasses.field(default=b"", init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        fields = fields_of(type(self))
        for field, value in zip(fields.values(), _values_of(type(self))(self), strict=True):
            # Most are whole numbers that fit: without a call, for this is done for each message, both ways.
            if type(value) is not int or not field.bits or value >> field.bits:
                _check(field, value)

    def encode(self) -> bytes:
        """Canonical bytes: one 32-byte word a field, as `abi.encode` gives."""
        if not self._encoded:
            found = zip(fields_of(type(self)).values(), _values_of(type(self))(self), strict=True)
            data = b"".join([v.to_bytes(WORD, "big") if f.bits else _word(f, v) for f, v in found])
            object.__setattr__(self, "_encoded", data)
        return self._encoded

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Message of canonical bytes.

        Raises:
            ValueError: wrong length, or padding that is not zero.
        """
        fields = fields_of(cls)
        if len(data) != WORD * len(fields):
            raise ValueError(f"{cls.__name__} is {WORD * len(fields)} bytes long, got {len(data)}")
        words = [data[i : i + WORD] for i in range(0, len(data), WORD)]
        found = zip(fields.items(), words, strict=True)
        message = cls(**{a: int.from_bytes(w, "big") if f.bits else _value(f, w) for (a, f), w in found})
        object.__setattr__(message, "_encoded", bytes(data))
        return message

    def digest(self, domain: AnyDomain) -> bytes:
        """EIP-712 digest: what is signed, and the message's identity."""
        return keccak(b"\x19\x01" + domain.separator() + keccak(type_hash(type(self)) + self.encode()))

    def to_json(self) -> dict[str, Any]:
        """Field name to JSON value; integers of 64 bits and more as decimal text."""
        return {f.name: _json(f, getattr(self, a)) for a, f in fields_of(type(self)).items()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Message of `to_json`.

        Raises:
            ValueError: missing, surplus or malformed fields.
        """
        fields = fields_of(cls)
        names = {f.name for f in fields.values()}
        if set(data) != names:
            raise ValueError(f"{cls.__name__} has fields {sorted(names)}, got {sorted(data)}")
        return cls(**{a: _parse(f, data[f.name]) for a, f in fields.items()})


_FIELDS: dict[type[Message], dict[str, Field]] = {}


def fields_of(message: type[Message]) -> dict[str, Field]:
    """Attribute name to signed field, in signing order; worked out once a class."""
    if message not in _FIELDS:
        _FIELDS[message] = _read_fields(message)
    return _FIELDS[message]


_VALUES: dict[type[Message], Callable[[Message], tuple[Any, ...]]] = {}


def _values_of(message: type[Message]) -> Callable[[Message], tuple[Any, ...]]:
    """What gives the values of all signed fields, in order."""
    if message not in _VALUES:
        first, *others = fields_of(message)
        # Of one name alone `attrgetter` gives no tuple.
        _VALUES[message] = attrgetter(first, *others) if others else lambda it: (getattr(it, first),)
    return _VALUES[message]


def _read_fields(message: type[Message]) -> dict[str, Field]:
    hints = get_type_hints(message, include_extras=True)
    found: dict[str, Field] = {}
    for item in dataclasses.fields(message):
        hint = hints[item.name]
        if get_origin(hint) is Annotated:
            found[item.name] = next(a for a in get_args(hint) if isinstance(a, Field))
    return found


def type_string(message: type[Message]) -> str:
    """EIP-712 `encodeType`, as in `Close(bytes32 sessionId,uint128 minPaid)`."""
    inner = ",".join(f"{f.kind} {f.name}" for f in fields_of(message).values())
    return f"{message.__name__}({inner})"


_TYPE_HASHES: dict[type[Message], bytes] = {}


def type_hash(message: type[Message]) -> bytes:
    """Keccak of the type string; worked out once a class."""
    if message not in _TYPE_HASHES:
        _TYPE_HASHES[message] = keccak(type_string(message).encode())
    return _TYPE_HASHES[message]


def _check(field: Field, value: object) -> None:
    if field.bits:
        if not isinstance(value, int) or isinstance(value, bool) or value < 0 or value >> field.bits:
            raise ValueError(f"{field.name} must fit {field.kind}, got {value!r}")
    elif field.kind == "bytes32":
        if not isinstance(value, bytes) or len(value) != WORD:
            raise ValueError(f"{field.name} must be 32 bytes")
    elif not isinstance(value, str) or checksum(value) != value:
        raise ValueError(f"{field.name} must be a checksummed address")


def _word(field: Field, value: Any) -> bytes:
    if field.bits:
        return int.to_bytes(value, WORD, "big")
    return bytes(value) if field.kind == "bytes32" else from_hex(value, 20).rjust(WORD, b"\0")


def _value(field: Field, word: bytes) -> object:
    if field.bits:
        return int.from_bytes(word, "big")
    if field.kind == "bytes32":
        return word
    if any(word[:12]):
        raise ValueError(f"{field.name} has dirty high bits")
    return checksum(word[12:])


def _json(field: Field, value: Any) -> str | int:
    if field.kind == "bytes32":
        return to_hex(value)
    return str(value) if field.bits >= 64 else value


def _parse(field: Field, value: Any) -> object:
    if field.kind == "bytes32":
        return from_hex(_text(field, value), WORD)
    if field.kind == "address":
        return checksum(_text(field, value))
    if field.bits < 64:
        return value
    text = _text(field, value)
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{field.name} must be decimal text, got {text[:24]!r}")
    return int(text)


def _text(field: Field, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{field.name} must be text, got {type(value).__name__}")  # noqa: TRY004
    return value
