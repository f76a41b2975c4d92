"""Calls, results, logs and reverts as bytes; no contract objects, because those are slow.

A log costs microseconds here: nearly every argument but a trailing `string` is one 32-byte word.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError

from marketplace.chain.artifacts import NAMES, Entry, Param, contract
from marketplace.protocol.eip712 import Message, fields_of
from marketplace.protocol.hexes import checksum, from_hex, to_hex

WORD: Final = 32
_ERROR_STRING: Final = from_hex("0x08c379a0")
_PANIC: Final = from_hex("0x4e487b71")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainEvent:
    """One log of our contracts.

    Attributes:
        args: Solidity names to integers, `0x` hex of bytes, checksummed addresses and text.
        contract: `Escrow`, `NodeRegistry`, `Court` or `ModelRegistry`.
        log_index: position in its block; with `block_hash` it names the log.
        part: position in a log that tells several things at once.
    """

    name: str
    args: dict[str, Any]
    contract: str
    block_number: int
    block_hash: bytes
    tx_hash: bytes
    log_index: int
    part: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Revert:
    """Why a contract refused: its error's name and arguments."""

    name: str
    args: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{k}={v}' for k, v in self.args.items())})"


def encode_call(contract_name: str, function: str, *values: Any) -> bytes:
    """Calldata of a function of one of our contracts."""
    entry = contract(contract_name).functions[function]
    return entry.selector + encode(entry.kinds, values)


def values_of(message: Message) -> tuple[Any, ...]:
    """Fields of a signed message in their order, as a struct argument of a call."""
    return tuple(getattr(message, attribute) for attribute in fields_of(type(message)))


def decode_result(contract_name: str, function: str, data: bytes) -> tuple[Any, ...]:
    """What a view returned, flat: a returned struct comes as its fields.

    Raises:
        ValueError: the bytes do not fit; there is another contract at the address.
    """
    entry = contract(contract_name).functions[function]
    try:
        values = decode([p.kind for p in entry.outputs], data)
    except DecodingError as error:
        raise ValueError(f"{len(data)} returned bytes do not fit") from error
    return tuple(values[0]) if len(values) == 1 and isinstance(values[0], tuple) else tuple(values)


def decode_struct(contract_name: str, function: str, data: bytes) -> dict[str, Any]:
    """Fields of the struct a view returned, by their Solidity names. Raises as `decode_result`."""
    fields = contract(contract_name).functions[function].fields
    return dict(zip(fields, decode_result(contract_name, function, data), strict=True))


def decode_log(log: Mapping[str, Any], contracts: Mapping[str, str]) -> ChainEvent | None:
    """Event of a raw JSON-RPC log; None when it is not of `contracts` or not in the interface.

    `contracts` is lower-case address to contract name.
    """
    name = contracts.get(str(log["address"]).lower())
    topics = log["topics"]
    if name is None or not topics or log.get("removed"):
        return None
    entry = contract(name).events.get(bytes.fromhex(topics[0][2:]))
    if entry is None:
        return None
    args = {
        p.name: _word(p.kind, bytes.fromhex(t[2:])) for p, t in zip(entry.indexed, topics[1:], strict=True)
    }
    args |= _arguments(entry.inputs, bytes.fromhex(log["data"][2:]))
    return ChainEvent(
        name=entry.name,
        args=args,
        contract=name,
        block_number=int(log["blockNumber"], 16),
        block_hash=bytes.fromhex(log["blockHash"][2:]),
        tx_hash=bytes.fromhex(log["transactionHash"][2:]),
        log_index=int(log["logIndex"], 16),
    )


def decode_revert(data: bytes) -> Revert | None:
    """Error a contract reverted with; None for bytes that are no known error."""
    if data[:4] == _ERROR_STRING:
        return _decode_revert("Error", (Param("reason", "string"),), data[4:])
    if data[:4] == _PANIC:
        return _decode_revert("Panic", (Param("code", "uint256"),), data[4:])
    entry = _errors().get(data[:4])
    return _decode_revert(entry.name, entry.inputs, data[4:]) if entry else None


def encode_creation(contract_name: str, *values: Any) -> bytes:
    """Creation code with constructor arguments."""
    found = contract(contract_name)
    return found.creation_code + encode(found.constructor, values)


def event_topic(contract_name: str, event: str) -> str:
    """First topic of an event, as hex."""
    events = contract(contract_name).events.values()
    return to_hex(next(e.selector for e in events if e.name == event))


@functools.cache
def _errors() -> dict[bytes, Entry]:
    return {selector: entry for name in NAMES for selector, entry in contract(name).errors.items()}


def _decode_revert(name: str, params: Sequence[Param], data: bytes) -> Revert | None:
    try:
        values = decode([p.kind for p in params], data)
    except DecodingError:
        return None
    return Revert(name=name, args={p.name: _plain(p.kind, v) for p, v in zip(params, values, strict=True)})


def _plain(kind: str, value: Any) -> Any:
    if kind == "address":
        return checksum(value)
    if isinstance(value, tuple):
        return [_plain(kind.removesuffix("[]"), item) for item in value]
    return to_hex(value) if isinstance(value, bytes) else value


def _arguments(params: Sequence[Param], data: bytes) -> dict[str, Any]:
    if any(p.kind == "bytes" or p.kind.endswith("]") for p in params):
        # Rare, so what decodes everything may be slow.
        values = decode([p.kind for p in params], data)
        return {p.name: _plain(p.kind, v) for p, v in zip(params, values, strict=True)}
    found: dict[str, Any] = {}
    for index, param in enumerate(params):
        word = data[WORD * index : WORD * (index + 1)]
        found[param.name] = _text(data, word) if param.kind == "string" else _word(param.kind, word)
    return found


def _word(kind: str, word: bytes) -> Any:
    if kind == "address":
        return _address(word[12:])
    if kind.startswith("bytes"):
        return "0x" + word.hex()
    return int.from_bytes(word, "big")


def _text(data: bytes, offset: bytes) -> str:
    start = int.from_bytes(offset, "big") + WORD
    length = int.from_bytes(data[start - WORD : start], "big")
    # A node's owner writes this text; bytes that are no UTF-8 must not stop the follower.
    return data[start : start + length].decode(errors="replace")


@functools.lru_cache(maxsize=4096)
def _address(raw: bytes) -> str:
    # Checksumming hashes; the same few addresses come again and again.
    return checksum(raw)
