"""Blocks, balances and transactions of any chain; knows none of our contracts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from marketplace.chain.blocks import BlockRef
from marketplace.chain.calls import Call
from marketplace.chain.codec import decode_revert
from marketplace.chain.rpc import Rpc, RpcRefused
from marketplace.protocol.errors import BadRequest, ChainTrouble, ErrorCode
from marketplace.protocol.hexes import ZERO_ADDRESS, from_hex, keccak, to_hex

_EXECUTION_REVERTED: Final = 3
# What nodes say of a call that can never succeed as it is; asking again would not help.
_HOPELESS: Final = ("revert", "gas required exceeds", "gas cap", "out of gas", "insufficient funds", "opcode")
_FALLBACK_TIP_WEI: Final = 1_000_000_000
# A transaction's bytes never change, so its fee must outlast a rise: 12 full blocks quadruple the base fee.
_BASE_FEE_HEADROOM: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class TxSeen:
    """A transaction in a block. `ok` is False when it reverted; `contract` is what it created."""

    block_number: int
    block_hash: bytes
    ok: bool
    gas_used: int
    contract: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fees:
    """EIP-1559 fees in wei a unit of gas."""

    max_wei: int
    tip_wei: int


class Ethereum:
    """Reads of one chain, and the sending of ready bytes."""

    def __init__(self, rpc: Rpc) -> None:
        self._rpc = rpc
        self._chain_id: int | None = None

    @property
    def chain_id(self) -> int:
        """Chain id; asked once."""
        if self._chain_id is None:
            self._chain_id = int(self._read("eth_chainId"), 16)
        return self._chain_id

    def head(self) -> BlockRef:
        """Newest block."""
        found = _block(self._read("eth_getBlockByNumber", "latest", False))
        if found is None:
            raise ChainTrouble(ErrorCode.CHAIN_UNAVAILABLE, "the chain has no newest block")
        return found

    def block(self, number: int) -> BlockRef | None:
        """Block of a number; None above the head."""
        return _block(self._read("eth_getBlockByNumber", hex(number), False))

    def next_timestamp(self) -> int:
        """Unix seconds of the block that comes next; where a chain is idle, long after its newest."""
        found = self._read("eth_getBlockByNumber", "pending", False)
        return int(found["timestamp"], 16) if found else self.head().timestamp

    def code(self, address: str) -> bytes:
        """Code at an address; empty where there is no contract."""
        return from_hex(self._read("eth_getCode", address, "latest"))

    def eth_balance_wei(self, address: str) -> int:
        """Native balance, for gas."""
        return int(self._read("eth_getBalance", address, "latest"), 16)

    def nonce(self, address: str, at: int | None = None) -> int:
        """Transactions an address has sent: mined up to block `at`, or with those waiting."""
        return int(self._read("eth_getTransactionCount", address, "pending" if at is None else hex(at)), 16)

    def fees(self) -> Fees:
        """Fees for a transaction now, with headroom for a rising base fee."""
        history = self._read("eth_feeHistory", "0x1", "latest", [])
        base_wei = int(history["baseFeePerGas"][-1], 16)
        tip_wei = self._tip_wei()
        return Fees(max_wei=base_wei * _BASE_FEE_HEADROOM + tip_wei, tip_wei=tip_wei)

    def estimate_gas(self, sender: str, call: Call) -> int:
        """Gas of a call on top of the waiting transactions.

        Raises:
            BadRequest: it would revert; the detail is the contract's error.
        """
        fields: dict[str, Any] = {"from": sender, "data": to_hex(call.data)}
        fields |= {"to": call.to} if call.to else {}
        fields |= {"accessList": call.access_list} if call.access_list else {}
        try:
            return int(self._rpc.read("eth_estimateGas", fields, "pending"), 16)
        except RpcRefused as refused:
            raise _blame(refused, call.what) from refused

    def call(self, to: str, data: bytes, *, sender: str = ZERO_ADDRESS, at: int | None = None) -> bytes:
        """Result of a call without effects, at a block's end or now. Raises as `estimate_gas`."""
        fields = {"from": sender, "to": to, "data": to_hex(data)}
        try:
            return from_hex(self._rpc.read("eth_call", fields, "latest" if at is None else hex(at)))
        except RpcRefused as refused:
            raise _blame(refused, "call") from refused

    def logs(self, addresses: list[str], first: int, last: int, topics: list[Any]) -> list[dict[str, Any]]:
        """Raw logs of blocks `first` to `last`, both included."""
        query = {"address": addresses, "fromBlock": hex(first), "toBlock": hex(last), "topics": topics}
        found: list[dict[str, Any]] = self._read("eth_getLogs", query)
        return found

    def long_logs(
        self, addresses: list[str], first: int, last: int, topics: list[Any]
    ) -> list[dict[str, Any]]:
        """As `logs`, for any number of blocks: in ranges as narrow as the node wants them."""
        found: list[dict[str, Any]] = []
        span = last - first + 1
        while first <= last:
            end = min(first + span - 1, last)
            try:
                found += self.logs(addresses, first, end, topics)
            except ChainTrouble as trouble:
                # Each node words its limit otherwise; a refusal of one block is about something else.
                if "rpc_code" not in trouble.values or span == 1:
                    raise
                span = (span + 1) // 2
                continue
            first = end + 1
        return found

    def tx_receipt(self, tx_hash: bytes) -> TxSeen | None:
        """Where a transaction was mined; None while it is not."""
        found = self._read("eth_getTransactionReceipt", to_hex(tx_hash))
        if not found or not found.get("blockHash"):
            return None
        return TxSeen(
            block_number=int(found["blockNumber"], 16),
            block_hash=from_hex(found["blockHash"], 32),
            ok=int(found["status"], 16) == 1,
            gas_used=int(found["gasUsed"], 16),
            contract=found.get("contractAddress"),
        )

    def tx_input(self, tx_hash: bytes) -> bytes:
        """Calldata of a transaction; empty when the node does not have it."""
        found = self._read("eth_getTransactionByHash", to_hex(tx_hash))
        return from_hex(found["input"]) if found else b""

    def knows(self, tx_hash: bytes) -> bool:
        """Whether the node holds a transaction, mined or waiting."""
        return self._read("eth_getTransactionByHash", to_hex(tx_hash)) is not None

    def broadcast(self, raw: bytes) -> None:
        """Hands signed bytes to the node, once; fine when it has them already.

        Raises:
            ChainTrouble: the node did not answer, or refused and does not know the transaction.
        """
        try:
            self._rpc.once("eth_sendRawTransaction", to_hex(raw))
        except RpcRefused as refused:
            # "already known", "nonce too low", and on Hardhat the revert of a transaction that was mined:
            # texts differ by node, so ask for the hash instead of reading them.
            if not self.knows(keccak(raw)):
                raise ChainTrouble(ErrorCode.CHAIN_UNAVAILABLE, str(refused), refused=True) from refused

    def revert_reason(self, tx_hash: bytes) -> str:
        """Error of a mined transaction that reverted, by calling it again on the state before its block."""
        found = self._read("eth_getTransactionByHash", to_hex(tx_hash))
        if not found or not found.get("blockNumber"):
            return "never mined: another transaction took its nonce"
        if not found.get("to"):
            return "contract creation failed"
        before = int(found["blockNumber"], 16) - 1
        try:
            self.call(found["to"], from_hex(found["input"]), sender=found["from"], at=before)
        except BadRequest as reverted:
            return reverted.detail
        return "reverted; not repeatable on the state before its block"

    def _tip_wei(self) -> int:
        try:
            return int(self._rpc.read("eth_maxPriorityFeePerGas"), 16)
        except RpcRefused:
            return _FALLBACK_TIP_WEI

    def _read(self, method: str, *params: Any) -> Any:
        try:
            return self._rpc.read(method, *params)
        except RpcRefused as refused:
            raise ChainTrouble(ErrorCode.CHAIN_UNAVAILABLE, str(refused), rpc_code=refused.code) from refused


def _block(found: dict[str, Any] | None) -> BlockRef | None:
    if found is None:
        return None
    return BlockRef(
        number=int(found["number"], 16),
        hash=from_hex(found["hash"], 32),
        parent=from_hex(found["parentHash"], 32),
        timestamp=int(found["timestamp"], 16),
    )


def _blame(refused: RpcRefused, what: str) -> BadRequest | ChainTrouble:
    hopeless = any(mark in refused.message.lower() for mark in _HOPELESS)
    if not (hopeless or refused.data or refused.code == _EXECUTION_REVERTED):
        return ChainTrouble(ErrorCode.CHAIN_UNAVAILABLE, str(refused), rpc_code=refused.code)
    revert = decode_revert(refused.data)
    if revert is None:
        return BadRequest(ErrorCode.TRANSACTION_REVERTED, refused.message, what=what, error="", args={})
    return BadRequest(
        ErrorCode.TRANSACTION_REVERTED, str(revert), what=what, error=revert.name, args=revert.args
    )
