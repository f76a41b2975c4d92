"""Providers, stake and nodes, as `INodeRegistry` words them."""

from __future__ import annotations

from typing import Final

from tests.model.messages import NOBODY
from tests.model.records import U64, U128, Ledger, Node, Provider, Refused, argument, fits, narrow

MOST_NODES: Final = 100


class Registry(Ledger):
    def register(self, uri: str) -> None:
        if self.provider(self.caller).registered:
            raise Refused("NodeRegistry_AlreadyProvider", self.caller)
        self.change_provider(self.caller, registered=True)
        self.emit("registry", "ProviderRegistered", self.caller, uri)

    def stake(self, amount: int) -> None:
        argument(amount)
        before = self._own().staked
        if amount == 0:
            raise Refused("NodeRegistry_ZeroAmount")
        staked = narrow("NodeRegistry", fits(before + amount, U128))
        self.change_provider(self.caller, staked=staked)
        self.emit("registry", "Staked", self.caller, amount, staked)
        self._tell_serving(self.caller, before, staked)
        self.take(self.caller, self.places.registry, amount)

    def request_unstake(self, amount: int) -> None:
        argument(amount)
        own = self._own()
        if amount == 0:
            raise Refused("NodeRegistry_ZeroAmount")
        if amount > own.free:
            raise Refused("NodeRegistry_AboveStake", amount, own.free)
        unlocks_at = self.now + self.rules.unstake_delay_seconds
        left = own.staked - amount
        self.change_provider(
            self.caller, staked=left, unstaking=fits(own.unstaking + amount, U64), unstake_at=unlocks_at
        )
        self.emit("registry", "UnstakeRequested", self.caller, amount, unlocks_at)
        self._tell_serving(self.caller, own.staked, left)

    def withdraw_stake(self) -> None:
        own = self._own()
        if own.unstaking == 0:
            raise Refused("NodeRegistry_NothingUnstaking", self.caller)
        if self.now < own.unstake_at:
            raise Refused("NodeRegistry_TooEarly", self.now, own.unstake_at)
        self.change_provider(self.caller, unstaking=0, unstake_at=0)
        self.emit("registry", "StakeWithdrawn", self.caller, own.unstaking)
        self.transfer(self.places.registry, self.caller, own.unstaking)

    def slash(self, owner: int, amount: int) -> None:
        self._court_only()
        guilty = self.provider(owner)
        taken = min(amount, guilty.staked + guilty.unstaking)
        at_work = min(taken, guilty.staked)
        left = guilty.staked - at_work
        self.change_provider(owner, staked=left, unstaking=guilty.unstaking - (taken - at_work))
        self.tables.totals["slashed"] += taken
        self.emit("registry", "Slashed", owner, taken, left)
        self._tell_serving(owner, guilty.staked, left)

    def release(self, to: int, amount: int) -> None:
        argument(amount)
        self._court_only()
        self.tables.totals["slashed"] = fits(self.tables.totals["slashed"] - amount, U128)
        self.emit("registry", "SlashedReleased", to, amount)
        self.transfer(self.places.registry, to, amount)

    def lock(self, owner: int, amount: int) -> None:
        self._escrow_only()
        self.lock_stake(owner, amount)

    def unlock(self, owner: int, amount: int) -> None:
        self._escrow_only()
        self.unlock_stake(owner, amount)

    # ------------------------------------------------------------------------------------------------ nodes

    def add_node(self, signer: int, encryption_key: bytes, settler: int, uri: str) -> None:
        own = self._own()
        if NOBODY in (signer, settler):
            raise Refused("NodeRegistry_ZeroAddress")
        owned = len(self.nodes_of(self.caller))
        if owned >= MOST_NODES:
            raise Refused("NodeRegistry_TooManyNodes", owned, MOST_NODES)
        node_id = len(self.tables.nodes) + 1
        serves = own.staked >= self.rules.min_stake
        self.tables.nodes[node_id] = Node(owner=self.caller, settler=settler, serves=serves)
        self.tables.signers[node_id, 1] = signer
        self.emit("registry", "NodeAdded", node_id, self.caller, signer, encryption_key, uri)
        self.emit("escrow", "SettlerSet", node_id, settler)

    def rotate_node_key(self, node_id: int, signer: int, encryption_key: bytes) -> None:
        self._owner_only(node_id)
        if signer == NOBODY:
            raise Refused("NodeRegistry_ZeroAddress")
        epoch = self.tables.nodes[node_id].epoch + 1
        self.change_node(node_id, epoch=epoch)
        self.tables.signers[node_id, epoch] = signer
        self.emit("registry", "NodeKeyRotated", node_id, epoch, signer, encryption_key)

    def set_settler(self, node_id: int, settler: int) -> None:
        self._owner_only(node_id)
        if settler == NOBODY:
            raise Refused("NodeRegistry_ZeroAddress")
        self.change_node(node_id, settler=settler)
        self.emit("escrow", "SettlerSet", node_id, settler)

    def set_metadata(self, node_id: int, uri: str) -> None:
        self._owner_only(node_id)
        self.emit("registry", "MetadataSet", node_id, uri)

    def nodes_of(self, owner: int) -> list[int]:
        return [node_id for node_id, node in self.tables.nodes.items() if node.owner == owner]

    def told_by_another(self, *_: object) -> None:
        """What only the registry may tell the escrow, told by anybody else."""
        raise Refused("Escrow_NotRegistry", self.caller, self.places.registry)

    # --------------------------------------------------------------------------------- what the escrow asks

    def lock_stake(self, owner: int, amount: int) -> None:
        guarantor = self.provider(owner)
        if amount > guarantor.free:
            raise Refused("NodeRegistry_AboveFreeStake", amount, guarantor.free)
        self.change_provider(owner, locked=guarantor.locked + amount)
        self.emit("registry", "StakeLocked", owner, amount)

    def unlock_stake(self, owner: int, amount: int) -> None:
        self.change_provider(owner, locked=fits(self.provider(owner).locked - amount, U64))
        self.emit("registry", "StakeUnlocked", owner, amount)

    # ---------------------------------------------------------------------------------------------- helpers

    def _own(self) -> Provider:
        own = self.provider(self.caller)
        if not own.registered:
            raise Refused("NodeRegistry_NotProvider", self.caller)
        return own

    def _owner_only(self, node_id: int) -> None:
        node = self.tables.nodes.get(node_id)
        owner = node.owner if node else NOBODY
        if self.caller != owner:
            raise Refused("NodeRegistry_NotOwner", self.caller, owner)

    def _court_only(self) -> None:
        if self.caller != self.places.court:
            raise Refused("NodeRegistry_NotCourt", self.caller, self.places.court)

    def _escrow_only(self) -> None:
        if self.caller != self.places.escrow:
            raise Refused("NodeRegistry_NotEscrow", self.caller, self.places.escrow)

    def _tell_serving(self, owner: int, before: int, staked: int) -> None:
        serves = staked >= self.rules.min_stake
        if serves == (before >= self.rules.min_stake):
            return
        for node_id in self.nodes_of(owner):
            self.change_node(node_id, serves=serves)
