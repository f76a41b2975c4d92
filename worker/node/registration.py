"""Makes this machine a node of its owner: register, stake, add the node, gas for its settler.

Every step looks at the chain first, so a crash anywhere is repaired by running it again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from eth_account import Account

from marketplace.chain import calls
from marketplace.chain.calls import Call
from marketplace.chain.client import ChainClient, NodeState
from marketplace.chain.deployment import Deployment
from marketplace.chain.devkeys import is_local, refuse_test_key
from marketplace.chain.sender import Sender
from marketplace.protocol.errors import BadRequest, Broken, ErrorCode
from marketplace.protocol.signing import Signer
from marketplace.protocol.transactions import TxJournal, TxRecord, TxState
from marketplace.telemetry.logs import get_logger
from marketplace.telemetry.names import Log
from worker.node.keys import PublicKeys

LOW_GAS_WEI: Final = 10**16
_GIFT_WEI: Final = 10**18
_TRANSFER_GAS: Final = 21_000

log = get_logger(__name__)


class Registrar:
    """Brings the chain to where this node can earn."""

    def __init__(
        self,
        *,
        chain: ChainClient,
        deployment: Deployment,
        journal: TxJournal,
        owner: Signer | None,
        keys: PublicKeys,
        now_ms: Callable[[], int],
    ) -> None:
        self._chain = chain
        self._deployment = deployment
        self._journal = journal
        self._owner = owner
        self._keys = keys
        self._now_ms = now_ms

    def ensure(self, known_id: int | None, *, stake_atoms: int, uri: str) -> tuple[int, NodeState]:
        """The node's id and state on-chain, after whatever was missing is done.

        Args:
            known_id: id from the ledger, if there is one.
            stake_atoms: least stake of the owner; never less than the registry's minimum.
            uri: where the node describes itself; may be empty.

        Raises:
            BadRequest: something only the owner can do is missing, and its key is not here or cannot pay.
            ChainTrouble: it is another chain, or does not answer; run it again.
        """
        self._chain.check()
        for address in (self._keys.signer, self._keys.settler):
            refuse_test_key(address, self._deployment.chain_id)
        node_id = known_id if known_id is not None and self._is_ours(known_id) else None
        if self._owner is None:
            if node_id is None:
                raise BadRequest(
                    ErrorCode.INVALID_REQUEST,
                    "this node is not registered yet: set WATT_NODE_OWNER_KEY for its first start",
                )
            return node_id, self._state(node_id)
        sender = Sender(self._chain, self._owner, self._journal, self._now_ms)
        self._register(sender, self._owner.address)
        self._stake(sender, self._owner.address, max(stake_atoms, self._deployment.min_stake_atoms))
        node_id = node_id or self._find() or self._add(sender, uri)
        self._fund_settler(sender, self._owner)
        state = self._state(node_id)
        if state.settler != self._keys.settler:
            self._do(sender, "set-settler", calls.set_settler(self._deployment, node_id, self._keys.settler))
            state = self._state(node_id)
        return node_id, state

    def _is_ours(self, node_id: int) -> bool:
        state = self._chain.node(node_id)
        return state is not None and state.signer == self._keys.signer

    def _state(self, node_id: int) -> NodeState:
        state = self._chain.node(node_id)
        if state is None:
            raise Broken(ErrorCode.UNKNOWN_NODE, f"node {node_id} is not in the registry")
        return state

    def _register(self, sender: Sender, owner: str) -> None:
        if not self._chain.provider(owner).registered:
            self._do(sender, "register", calls.register(self._deployment, ""))

    def _stake(self, sender: Sender, owner: str, target_atoms: int) -> None:
        missing = target_atoms - self._chain.provider(owner).staked_atoms
        if missing <= 0:
            return
        balance = self._chain.token_balance_atoms(owner)
        if balance < missing and is_local(self._deployment.chain_id):
            self._do(sender, "faucet", calls.faucet(self._deployment, owner, missing - balance))
            balance = self._chain.token_balance_atoms(owner)
        if balance < missing:
            raise BadRequest(
                ErrorCode.INVALID_REQUEST,
                f"{owner} must stake {missing} more atoms and has {balance}: send it the token first",
            )
        registry = self._deployment.registry
        if self._chain.allowance_atoms(owner, registry) < missing:
            self._do(sender, "approve", calls.approve(self._deployment, registry, missing))
        self._do(sender, "stake", calls.stake(self._deployment, missing))

    def _find(self) -> int | None:
        owner = self._owner.address if self._owner else ""
        mine = [node_id for node_id in self._chain.node_ids_of(owner) if self._is_ours(node_id)]
        return mine[-1] if mine else None

    def _add(self, sender: Sender, uri: str) -> int:
        keys = self._keys
        call = calls.add_node(self._deployment, keys.signer, keys.encryption_key, keys.settler, uri)
        self._do(sender, "add-node", call)
        found = self._find()
        if found is None:
            raise Broken(ErrorCode.UNKNOWN_NODE, "the registry does not list the node that was just added")
        log.info(Log.STARTED, name="node", node_id=found, signer=keys.signer)
        return found

    def _fund_settler(self, sender: Sender, owner: Signer) -> None:
        if self._chain.eth_balance_wei(self._keys.settler) >= LOW_GAS_WEI:
            return
        if not is_local(self._deployment.chain_id):
            log.warning(
                Log.CHAIN_TROUBLE, reason="the settler is low on gas: send it ETH", settler=self._keys.settler
            )
            return
        if self._resume(sender, "gas") is None:
            record = self._transfer(owner, f"gas:{self._journal.next_nonce(owner.address)}")
            self._journal.add(record)
            self._chain.broadcast(record.raw)
            self._wait(sender, record.intent)

    def _transfer(self, owner: Signer, intent: str) -> TxRecord:
        nonce = max(self._journal.next_nonce(owner.address), self._chain.nonce(owner.address))
        fees = self._chain.fees()
        fields = {
            "type": 2,
            "chainId": self._deployment.chain_id,
            "nonce": nonce,
            "gas": _TRANSFER_GAS,
            "maxFeePerGas": fees.max_wei,
            "maxPriorityFeePerGas": fees.tip_wei,
            "to": self._keys.settler,
            "value": _GIFT_WEI,
            "data": "0x",
        }
        signed = Account.sign_transaction(fields, owner.secret)
        return TxRecord(
            intent=intent,
            sender=owner.address,
            nonce=nonce,
            raw=bytes(signed.raw_transaction),
            tx_hash=bytes(signed.hash),
            state=TxState.SIGNED,
            created_at_ms=self._now_ms(),
        )

    def _do(self, sender: Sender, step: str, call: Call) -> None:
        # An unfinished transaction of this step from before a crash is waited for, never repeated.
        if self._resume(sender, step) is None:
            sender.send_and_wait(f"{step}:{self._journal.next_nonce(sender.address)}", call)

    def _resume(self, sender: Sender, step: str) -> str | None:
        pending = [r.intent for r in self._journal.pending(sender.address) if r.intent.startswith(f"{step}:")]
        for intent in pending:
            self._wait(sender, intent)
        return pending[0] if pending else None

    def _wait(self, sender: Sender, intent: str) -> None:
        # The intent exists, so the call is never built; it only names what is waited for.
        sender.send_and_wait(intent, Call(to=None, data=b"", what=intent))
