"""The contracts that ship, in an EVM of this process, with a plain address in the court's place."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pyrevm

from tests.model.abi import Interface, Kind, encoded, keccak, load, words
from tests.model.messages import domain
from tests.model.records import DIRTY, Event, Places, Refused, Rules

CHAIN_ID: Final = 31_337
CONTRACTS: Final = {"escrow": "Escrow", "registry": "NodeRegistry", "token": "TestDollar"}
_DEPLOYER: Final = 0xDE9107
_PLANTED_BYTES: Final = 30_000
_PANIC: Final = keccak(b"Panic(uint256)")[:4]
_OUTPUT: Final = re.compile(r"Revert \{.*output: 0x([0-9a-f]*)")
# A buyer that is a contract: says yes to every signature (ERC-1271), and for the deployer calls the address
# in the first word with the bytes that follow. Addresses with code can send nothing themselves.
_VAULT: Final = bytes.fromhex(
    f"3373{_DEPLOYER:040x}14602a57"  # caller == deployer: jump to 0x2a
    "631626ba7e60e01b60005260206000f3"  # mstore(0, magic << 224) return(0, 32)
    "5b60203603806020600037"  # 0x2a: calldatacopy(0, 32, size := calldatasize - 32)
    "6000600082600060006000355af1"  # ok := call(gas, calldata[0], 0, 0, size, 0, 0)
    "3d600060003e6050573d6000fd5b00"  # returndatacopy; if ok stop, else revert with the same
)

Log = tuple[str, list[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a call: its logs, or what it was refused with."""

    logs: list[Log] = field(default_factory=list)
    refusal: bytes | None = None


@functools.cache
def interfaces() -> dict[str, Interface]:
    return {name: load(contract) for name, contract in CONTRACTS.items()}


class Market:
    """One deployment. Every call is a transaction of its own at the time that was set."""

    def __init__(
        self, rules: Rules, court: int, treasury: int, vault: int, code: dict[str, bytes] | None = None
    ) -> None:
        # The escrow has few bytes left, and a planted bug may need more than a chain takes.
        config = pyrevm.CfgEnv(chain_id=CHAIN_ID, limit_contract_code_size=_PLANTED_BYTES if code else None)
        self._evm = pyrevm.EVM(env=pyrevm.Env(cfg=config), spec_id="CANCUN")
        self._codes = {name: known.code for name, known in interfaces().items()} | (code or {})
        self._names: dict[str, str] = {}
        self._at: dict[str, str] = {}
        registry = _created(_DEPLOYER, 2)
        windows = (rules.max_session_seconds, rules.grace_seconds, rules.challenge_seconds)
        token = self._deploy("token")
        escrow = self._deploy("escrow", token, registry, court, treasury, *windows)
        delays = (rules.unstake_delay_seconds, rules.dispute_seconds)
        if self._deploy("registry", token, escrow, rules.min_stake, *delays) != registry:
            raise AssertionError("the registry is not where the escrow expects it")
        self._evm.insert_account_info(_hex(vault), pyrevm.AccountInfo(code=_VAULT))
        self.places = Places(
            escrow=escrow,
            registry=registry,
            token=token,
            court=court,
            treasury=treasury,
            vault=vault,
            escrow_domain=domain("Wattline", CHAIN_ID, escrow),
            token_domain=domain("Test Dollar", CHAIN_ID, token),
        )

    def set_time(self, now: int) -> None:
        self._evm.set_block_env(pyrevm.BlockEnv(number=1, timestamp=now))

    def call(self, contract: str, verb: str, caller: int, values: Sequence[Any]) -> Answer:
        data = interfaces()[contract].call(verb, values)
        sender, to = caller, self._at[contract]
        if caller == self.places.vault:
            data, sender, to = bytes.fromhex(to[2:]).rjust(32, b"\0") + data, _DEPLOYER, _hex(caller)
        try:
            self._evm.message_call(_hex(sender), to, calldata=data)
        except RuntimeError as error:
            return Answer(refusal=_output(error))
        result = self._evm.result
        if result is None:
            raise AssertionError("a call left no result")
        return Answer([(self._names[log.address], *log.data) for log in result.logs])

    def read(self, contract: str, view: str, *values: int | bytes) -> list[int]:
        """Words of a view's answer."""
        data = interfaces()[contract].functions[view][0] + words(*values)
        raw = self._evm.message_call(_hex(_DEPLOYER), self._at[contract], calldata=data, is_static=True)
        return [int.from_bytes(raw[at : at + 32], "big") for at in range(0, len(raw), 32)]

    def _deploy(self, name: str, *arguments: int) -> int:
        address = self._evm.deploy(_hex(_DEPLOYER), self._codes[name] + words(*arguments))
        self._at[name] = address
        # Logs name a contract by its checksummed address.
        self._names[_checksum(address)] = name
        return int(address, 16)


def expected_logs(events: Sequence[Event]) -> list[Log]:
    """What the chain must have logged when the model is right."""
    known = interfaces()
    return [(contract, *known[contract].events[name].log(values)) for contract, name, values in events]


def expected_refusal(refused: Refused) -> bytes | None:
    """What the chain must have answered; nothing when any refusal will do."""
    if refused.error == DIRTY:
        return None
    if refused.error == "":
        return b""
    if refused.error == "Panic":
        return _PANIC + words(*refused.values)
    selector, kinds = _errors()[refused.error]
    output: bytes = selector + encoded(kinds, refused.values)
    return output


def error_named(output: bytes) -> str:
    """Name of the error that an answer begins with."""
    known = {selector: name for name, (selector, _) in _errors().items()} | {_PANIC: "Panic"}
    return known.get(output[:4], output.hex() or "nothing")


def error_names() -> set[str]:
    """Every error that the contracts declare."""
    return set(_errors())


@functools.cache
def _errors() -> dict[str, tuple[bytes, tuple[Kind, ...]]]:
    reader = load("ReceiptReader")
    return {name: entry for known in (*interfaces().values(), reader) for name, entry in known.errors.items()}


def _output(error: RuntimeError) -> bytes:
    found = _OUTPUT.search(str(error))
    if found is None:
        raise AssertionError(f"the call did not end by a refusal: {error}") from error
    return bytes.fromhex(found[1])


def _created(deployer: int, nonce: int) -> int:
    """Address of the contract that an account makes with a small nonce."""
    sender = deployer.to_bytes(20, "big")
    return int.from_bytes(keccak(b"\xd6\x94" + sender + bytes([nonce or 0x80]))[-20:], "big")


@functools.cache
def _hex(address: int) -> str:
    return f"0x{address:040x}"


def _checksum(address: str) -> str:
    plain = address.removeprefix("0x").lower()
    bits = keccak(plain.encode()).hex()
    return "0x" + "".join(c.upper() if bit in "89abcdef" else c for c, bit in zip(plain, bits, strict=False))
