"""ABI encoding of calls, events and errors, written for this check alone.

A word is an int, a bool or up to 32 bytes; nothing checks whether it fits its type: calls can be
dirty.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from eth_hash.auto import keccak as _keccak

ARTIFACTS: Final = Path(__file__).resolve().parents[2] / "artifacts" / "contracts"


@dataclass(frozen=True, slots=True)
class Kind:
    """A type: its canonical name, whether it lies behind an offset, and how a value is put down."""

    name: str
    is_dynamic: bool
    put: Callable[[Any], bytes]


@dataclass(frozen=True, slots=True)
class EventKind:
    topic: bytes
    indexed: tuple[bool, ...]
    kinds: tuple[Kind, ...]

    def log(self, values: Sequence[Any]) -> tuple[list[bytes], bytes]:
        """Topics and data, as the chain gives them."""
        topics, kinds, rest = [self.topic], [], []
        for kind, value, is_topic in zip(self.kinds, values, self.indexed, strict=True):
            if is_topic:
                topics.append(word(value))
            else:
                kinds.append(kind)
                rest.append(value)
        return topics, _tuple(kinds, rest)


@dataclass(frozen=True, slots=True)
class Interface:
    """What a contract can be asked, says and refuses with."""

    code: bytes
    functions: dict[str, tuple[bytes, tuple[Kind, ...]]]
    events: dict[str, EventKind]
    errors: dict[str, tuple[bytes, tuple[Kind, ...]]]

    def call(self, verb: str, values: Sequence[Any]) -> bytes:
        selector, kinds = self.functions[verb]
        return selector + _tuple(kinds, values)


def keccak(data: bytes) -> bytes:
    return bytes(_keccak(data))


def word(value: int | bytes) -> bytes:
    """32 bytes: numbers stand right, bytes stand left."""
    return value.ljust(32, b"\0") if isinstance(value, bytes) else int(value).to_bytes(32, "big")


def words(*values: int | bytes) -> bytes:
    return b"".join(map(word, values))


def load(name: str) -> Interface:
    """The interface and creation code of a contract that was built."""
    artifact = json.loads((ARTIFACTS / f"{name}.sol" / f"{name}.json").read_text())
    return interface(artifact["abi"], bytes.fromhex(artifact["bytecode"][2:]))


def interface(abi: Iterable[dict[str, Any]], code: bytes) -> Interface:
    functions: dict[str, tuple[bytes, tuple[Kind, ...]]] = {}
    events: dict[str, EventKind] = {}
    errors: dict[str, tuple[bytes, tuple[Kind, ...]]] = {}
    for entry in abi:
        if "name" not in entry:
            continue
        kinds = tuple(_kind(part) for part in entry["inputs"])
        signature = keccak(f"{entry['name']}({','.join(kind.name for kind in kinds)})".encode())
        if entry["type"] == "event":
            indexed = tuple(bool(part["indexed"]) for part in entry["inputs"])
            events[entry["name"]] = EventKind(signature, indexed, kinds)
        else:
            table = errors if entry["type"] == "error" else functions
            table[entry["name"]] = (signature[:4], kinds)
    return Interface(code, functions, events, errors)


def encoded(kinds: Sequence[Kind], values: Sequence[Any]) -> bytes:
    """Arguments of an error."""
    return _tuple(kinds, values)


def _kind(part: dict[str, Any]) -> Kind:
    name = str(part["type"])
    if name.endswith("[]"):
        return _list(_kind({**part, "type": name[:-2]}))
    if name == "tuple":
        return _struct(tuple(_kind(inner) for inner in part["components"]))
    if name in ("bytes", "string"):
        return Kind(name, True, _put_bytes)
    return Kind(name, False, word)


def _struct(kinds: tuple[Kind, ...]) -> Kind:
    name = f"({','.join(kind.name for kind in kinds)})"
    return Kind(name, any(kind.is_dynamic for kind in kinds), lambda values: _tuple(kinds, values))


def _list(kind: Kind) -> Kind:
    def put(values: Sequence[Any]) -> bytes:
        return word(len(values)) + _tuple([kind] * len(values), values)

    return Kind(f"{kind.name}[]", True, put)


def _put_bytes(value: bytes | str) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return word(len(raw)) + raw + b"\0" * (-len(raw) % 32)


def _tuple(kinds: Sequence[Kind], values: Sequence[Any]) -> bytes:
    parts = [kind.put(value) for kind, value in zip(kinds, values, strict=True)]
    offset = sum(32 if kind.is_dynamic else len(part) for kind, part in zip(kinds, parts, strict=True))
    head, tail = [], []
    for kind, part in zip(kinds, parts, strict=True):
        if kind.is_dynamic:
            head.append(word(offset))
            tail.append(part)
            offset += len(part)
        else:
            head.append(part)
    return b"".join(head + tail)
