"""Made-up chains: blocks of events as the contracts would emit them."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from marketplace.registry import rules
from marketplace.store.events import EventFact


def address(number: int) -> str:
    return f"0x{number:040x}"


def session_id(number: int) -> str:
    # Its first 24 bytes are what vouchers are known by.
    return f"0x{number:048x}" + "5e" * 8


def event(
    name: str, /, block: int = 1, index: int = 0, *, fork: int = 0, tx: int = 0, **args: Any
) -> EventFact:
    return EventFact(
        block_number=block,
        log_index=index,
        block_hash=f"0x{fork:032x}{block:032x}",
        tx_hash=f"0x{tx:064x}",
        contract="Escrow",
        name=name,
        subject=rules.subject(args),
        args=args,
    )


def opened(number: int = 1, block: int = 1, index: int = 0, **changes: Any) -> EventFact:
    args = {
        "sessionId": session_id(number),
        "buyer": address(1),
        "nodeId": 1,
        "key": address(90),
        "amount": 100,
        "expiresAt": 5000,
        "keyEpoch": 1,
    }
    return event("SessionOpened", block, index, **(args | changes))


def settled(number: int, seq: int, paid: int, block: int = 2, index: int = 0, **place: Any) -> EventFact:
    args = {"sessionId": session_id(number), "throughSeq": seq, "paid": paid}
    return event("VoucherSettled", block, index, receiptsRoot="0x" + "00" * 32, **(args | place))


def node_added(node_id: int = 1, block: int = 1, index: int = 0, owner: str = address(50)) -> EventFact:
    return event(
        "NodeAdded",
        block,
        index,
        nodeId=node_id,
        owner=owner,
        signer=address(60),
        encryptionKey="0x" + "07" * 32,
        uri="",
    )


@dataclass
class Chain:
    """A chain that grows at random, event by event as the contracts would allow."""

    random: random.Random
    fork: int = 0
    events: list[EventFact] = field(default_factory=list)
    head: int = 0

    def branch(self, at: int, fork: int) -> Chain:
        """Another chain with the same blocks up to `at`."""
        kept = [event for event in self.events if event.block_number <= at]
        return Chain(random=self.random, fork=fork, events=kept, head=at)

    def grow(self) -> None:
        """One block of up to four events."""
        self.head += 1
        for index in range(self.random.randrange(5)):
            made = self._next(rules.fold(rules.World(), self.events))
            if made is not None:
                name, args = made
                tx = self.random.randrange(10**9)
                self.events.append(event(name, self.head, index, fork=self.fork, tx=tx, **args))

    def _next(self, world: rules.World) -> tuple[str, dict[str, Any]] | None:
        moves = [
            self._deposit,
            self._open,
            self._top_up,
            self._settle,
            self._claim,
            self._close,
            self._provide,
            self._node,
            self._name,
        ]
        return self.random.choice(moves)(world)

    def _deposit(self, world: rules.World) -> tuple[str, dict[str, Any]]:
        buyer = address(self.random.randrange(1, 4))
        held = world.accounts.get(buyer, 0)
        if held > 10 and self.random.random() < 0.3:
            return "Withdrawn", {"buyer": buyer, "to": buyer, "amount": self.random.randrange(1, held)}
        return "Deposited", {"buyer": buyer, "amount": self.random.randrange(1, 1000)}

    def _open(self, world: rules.World) -> tuple[str, dict[str, Any]] | None:
        rich = [buyer for buyer, atoms in world.accounts.items() if atoms > 0]
        if not rich or not world.nodes:
            return None
        buyer = self.random.choice(sorted(rich))
        return "SessionOpened", {
            "sessionId": session_id(self.random.randrange(10**9)),
            "buyer": buyer,
            "nodeId": self.random.choice(sorted(world.nodes)),
            "key": address(90),
            "amount": self.random.randrange(1, world.accounts[buyer] + 1),
            "expiresAt": 5000,
            "keyEpoch": 1,
        }

    def _session(self, world: rules.World) -> rules.SessionFacts | None:
        held = [world.sessions[key] for key in sorted(world.sessions) if not world.sessions[key].closed]
        return self.random.choice(held) if held else None

    def _top_up(self, world: rules.World) -> tuple[str, dict[str, Any]] | None:
        held = self._session(world)
        if held is None or world.accounts[held.buyer] <= 0:
            return None
        added = self.random.randrange(1, world.accounts[held.buyer] + 1)
        total = held.deposited_atoms + added
        return "SessionToppedUp", {"sessionId": held.session_id, "added": added, "deposited": total}

    def _settle(self, world: rules.World) -> tuple[str, dict[str, Any]] | None:
        held = self._session(world)
        if held is None:
            return None
        if self.random.random() < 0.1:
            return "VoucherSkipped", {"sessionId": held.session_id, "status": 3}
        if held.claimed_atoms:
            return "ClaimReplaced", {"sessionId": held.session_id, "amount": held.claimed_atoms}
        return "VoucherSettled", {
            "sessionId": held.session_id,
            "throughSeq": held.through_seq + self.random.randrange(1, 5),
            "paid": self.random.randrange(held.paid_atoms, held.deposited_atoms + 1),
            "receiptsRoot": "0x" + "00" * 32,
        }

    def _claim(self, world: rules.World) -> tuple[str, dict[str, Any]] | None:
        sessions = [world.sessions[key] for key in sorted(world.sessions)]
        held = self.random.choice(sessions) if sessions else None
        if held is None or (held.closed and not held.claimed_atoms):
            return None
        where = {"sessionId": held.session_id}
        left = held.deposited_atoms - held.paid_atoms
        if not held.claimed_atoms:
            amount = self.random.randrange(1, left + 1) if left else 0
            seq = held.through_seq + self.random.randrange(1, 5)
            more = {"throughSeq": seq, "finalAt": 9, "receiptHashes": [f"0x{seq:064x}"]}
            return ("Claimed", where | more | {"amount": amount}) if amount else None
        amount = self.random.randrange(1, held.claimed_atoms + 1)
        if self.random.random() < 0.5:
            more = {"throughSeq": held.through_seq + 1, "paid": held.paid_atoms + amount}
            return "ClaimFinalised", where | more | {"amount": amount}
        is_paid = self.random.random() < 0.5
        return "ClaimResolved", where | {"amount": amount, "isPaid": is_paid, "receiptHash": "0x"}

    def _close(self, world: rules.World) -> tuple[str, dict[str, Any]] | None:
        held = self._session(world)
        if held is None or self.random.random() < 0.5:
            return None
        rest = held.deposited_atoms - held.paid_atoms - held.claimed_atoms
        return "SessionClosed", {"sessionId": held.session_id, "paid": held.paid_atoms, "returned": rest}

    def _provide(self, world: rules.World) -> tuple[str, dict[str, Any]]:
        owner = address(self.random.randrange(50, 53))
        staked = world.stakes.get(owner, 0)
        if staked > 5 and self.random.random() < 0.4:
            amount = self.random.randrange(1, staked)
            return "UnstakeRequested", {"owner": owner, "amount": amount, "unlocksAt": 9}
        amount = self.random.randrange(1, 100)
        return "Staked", {"owner": owner, "amount": amount, "staked": staked + amount}

    def _node(self, world: rules.World) -> tuple[str, dict[str, Any]]:
        node_id = self.random.choice(sorted(world.nodes)) if world.nodes else 0
        kind = self.random.randrange(5) if node_id else 0
        if kind == 0:
            made = node_added(len(world.nodes) + 1, owner=address(self.random.randrange(50, 53)))
            return made.name, made.args
        if kind == 1:
            epoch = world.nodes[node_id].epoch + 1
            key = "0x" + f"{epoch:064x}"
            return "NodeKeyRotated", {
                "nodeId": node_id,
                "epoch": epoch,
                "signer": address(epoch),
                "encryptionKey": key,
            }
        if kind == 2:
            return "MetadataSet", {"nodeId": node_id, "uri": f"https://{self.random.random()}"}
        if kind == 3:
            return "SettlerSet", {"nodeId": node_id, "settler": address(self.random.randrange(70, 80))}
        earned = world.nodes[node_id].earnings_atoms
        return "Collected", {"nodeId": node_id, "to": address(50), "amount": earned, "fee": 0}

    def _name(self, world: rules.World) -> tuple[str, dict[str, Any]] | None:
        label = self.random.choice(("1", "2", "latest", "trial"))
        args = {"name": f"m{self.random.randrange(3)}", "label": label, "publisher": address(40)}
        args["modelId"] = f"0x{self.random.randrange(5):064x}"
        if label in ("latest", "trial"):
            return "ChannelPointed", args
        return None if f"{args['name']}@{label}" in world.aliases else ("VersionReleased", args)
