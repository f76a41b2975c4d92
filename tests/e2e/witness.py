"""Reads the checker's evidence off a chain; as independent of the market as the checker is."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

from eth_abi import decode as abi_decode
from eth_abi import encode as abi_encode
from eth_utils import keccak, to_checksum_address

from tests.e2e.checker import EVENTS, Event, Evidence, SignedReceipt, fold


class Witness:
    """Reads evidence off a chain over plain JSON-RPC."""

    def __init__(self, rpc_url: str, escrow: str, token: str) -> None:
        self._url, self._escrow, self._token = rpc_url, escrow, token

    def evidence(self, receipts: list[SignedReceipt]) -> Evidence:
        """Events since genesis and the state of every account, session and node they name, at one block."""
        block = self._rpc("eth_blockNumber")
        found = Evidence(
            chain_id=int(self._rpc("eth_chainId"), 16), escrow=self._escrow, token=self._token,
            events=self._events(block), receipts=receipts,
        )  # fmt: skip
        books = fold(found)
        found.token_balance = self._number(
            block, self._token, "balanceOf(address)", ["address"], [self._escrow]
        )
        found.fees = self._number(block, self._escrow, "fees()", [], [])
        for buyer in books.accounts:
            found.accounts[buyer] = self._number(
                block, self._escrow, "accountOf(address)", ["address"], [buyer]
            )
        for node in books.earnings:
            data = self._call(block, self._escrow, "nodeAccount(uint32)", ["uint32"], [node])
            found.earnings[node] = abi_decode(["address", "uint96"], data)[1]
        for session, key in books.key.items():
            found.sessions[session] = self._session(block, session, key)
            raw = self._call(
                block, self._escrow, "claimOf(bytes32)", ["bytes32"], [bytes.fromhex(session[2:])]
            )
            found.claimed[session] = sum(abi_decode(["uint64", "uint64"], raw[:64]))
        return found

    def _session(self, block: str, session: str, key: str) -> tuple[int, int, int, bool]:
        raw = self._call(
            block,
            self._escrow,
            "session(bytes32,address)",
            ["bytes32", "address"],
            [bytes.fromhex(session[2:]), key],
        )
        deposited, paid, through, _, flags, _, _ = abi_decode(
            ["uint64", "uint64", "uint32", "uint32", "uint8", "uint16", "uint40"], raw
        )
        return deposited, paid, through, bool(flags & 2)

    def _events(self, block: str) -> list[Event]:
        logs = self._rpc(
            "eth_getLogs", {"fromBlock": "0x0", "toBlock": block, "address": [self._escrow, self._token]}
        )
        return [event for log in logs if (event := _decode(log))]

    def _number(self, block: str, to: str, signature: str, kinds: list[str], values: list[Any]) -> int:
        return int.from_bytes(self._call(block, to, signature, kinds, values), "big")

    def _call(self, block: str, to: str, signature: str, kinds: list[str], values: list[Any]) -> bytes:
        data = keccak(text=signature)[:4] + abi_encode(kinds, values)
        return bytes.fromhex(self._rpc("eth_call", {"to": to, "data": "0x" + data.hex()}, block)[2:])

    def _rpc(self, method: str, *params: Any) -> Any:
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(self._url, body, headers)  # noqa: S310 - our own loopback chain
        with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
            answer = json.load(response)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]


def _topic(name: str, kinds: tuple[str, ...]) -> str:
    return "0x" + keccak(text=f"{name}({','.join(k.rstrip('*') for k in kinds)})").hex()


_BY_TOPIC = {_topic(name, kinds): (name, kinds) for name, kinds in EVENTS.items()}


def _decode(log: dict[str, Any]) -> Event | None:
    if log["topics"][0] not in _BY_TOPIC:
        return None
    name, kinds = _BY_TOPIC[log["topics"][0]]
    indexed = [bytes.fromhex(t[2:]) for t in log["topics"][1:]]
    plain = [k for k in kinds if not k.endswith("*")]
    rest = list(abi_decode(plain, bytes.fromhex(log["data"][2:])))
    args = [abi_decode([k.rstrip("*")], indexed.pop(0))[0] if k.endswith("*") else rest.pop(0) for k in kinds]
    args = [
        to_checksum_address(a) if k.startswith("address") else a for a, k in zip(args, kinds, strict=True)
    ]
    return Event(
        name, args, to_checksum_address(log["address"]),
        int(log["blockNumber"], 16), int(log["logIndex"], 16), log["transactionHash"],
    )  # fmt: skip
