"""Whose account pays for a key's sessions, and who signs for it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from marketplace.protocol import nodelist, patterns
from marketplace.protocol.eip712 import Domain, Message
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.hexes import typed_address
from marketplace.protocol.signing import Signer


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What a key must know of its grant to use it. Nothing in it is secret.

    `node_ids` are the nodes it may pay; none: any node. The caps are on the chain. `signed_node_ids` are
    lists of grants that somebody may send or has sent; `signed_nonce` is the last one's number, 0 for none.
    `models` are patterns of names it may buy; none: any. The chain knows nothing of models: who spends holds
    itself to them.
    """

    name: str
    buyer: str
    key: str
    node_ids: tuple[int, ...]
    domain: Domain
    signed_node_ids: tuple[tuple[int, ...], ...] = ()
    signed_nonce: int = 0
    models: tuple[str, ...] = ()

    def with_signed(self, node_ids: tuple[int, ...], nonce: int) -> Self:
        """The same with a list that will hold once the grant of this number is sent."""
        lists = dict.fromkeys((*self.signed_node_ids, node_ids))
        return dataclasses.replace(self, signed_node_ids=tuple(lists), signed_nonce=nonce)

    def at(self, nodes_root: bytes) -> Self:
        """The same with the one of its lists that the escrow holds the key to; as it is where none fits."""
        for node_ids in (self.node_ids, *self.signed_node_ids):
            if nodelist.root(node_ids) == nodes_root:
                return dataclasses.replace(self, node_ids=node_ids)
        return self

    def save(self, path: Path) -> None:
        """Writes the file, in place of an older grant of the same name."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = path.with_name(path.name + ".new")
        fresh.write_text(json.dumps(self.to_json(), indent=2) + "\n")
        fresh.replace(path)

    def to_json(self) -> dict[str, Any]:
        """The form `load` reads."""
        return {
            "name": self.name,
            "buyer": self.buyer,
            "key": self.key,
            "node_ids": list(self.node_ids),
            "signed_node_ids": [list(node_ids) for node_ids in self.signed_node_ids],
            "signed_nonce": self.signed_nonce,
            "models": list(self.models),
            "domain": {"chain_id": self.domain.chain_id, "escrow": self.domain.escrow},
        }

    @classmethod
    def load(cls, path: Path) -> Self:
        """Grant of a file.

        Raises:
            BadRequest: no such file, or no grant in it.
        """
        try:
            data = json.loads(path.read_text())
            return cls(
                name=str(data["name"]),
                buyer=typed_address(data["buyer"]),
                key=typed_address(data["key"]),
                node_ids=_node_ids(data["node_ids"]),
                domain=Domain(int(data["domain"]["chain_id"]), typed_address(data["domain"]["escrow"])),
                signed_node_ids=tuple(map(_node_ids, data.get("signed_node_ids", []))),
                signed_nonce=int(data.get("signed_nonce", 0)),
                models=_models(data.get("models", [])),
            )
        except OSError as error:
            raise BadRequest(
                ErrorCode.NOT_FOUND, f"No grant at {path}.", hint="watt keys create NAME --cap AMOUNT"
            ) from error
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise BadRequest(
                ErrorCode.INVALID_REQUEST,
                f"{path} is no grant ({error}).",
                hint="Remove it, then grant the key anew: watt keys create NAME --cap AMOUNT",
            ) from error


def _node_ids(listed: list[Any]) -> tuple[int, ...]:
    return tuple(int(node_id) for node_id in listed)


def _models(listed: list[Any]) -> tuple[str, ...]:
    found = tuple(str(pattern) for pattern in listed)
    if problem := patterns.problem_of(found):
        raise ValueError(f"models: {problem}")
    return found


def grant_path(key_file: Path) -> Path:
    """Where a key file's grant is kept: beside it."""
    return key_file.with_name(key_file.stem + ".grant.json")


def grant_of(key_file: Path) -> Grant | None:
    """The grant beside a key file; None where the key is a buyer's own."""
    path = grant_path(key_file)
    return Grant.load(path) if path.exists() else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Payer:
    """Opens sessions from `buyer`'s account with `signer`, who is the buyer or a key it granted."""

    buyer: str
    signer: Signer
    node_ids: tuple[int, ...] = ()
    models: tuple[str, ...] = ()

    @classmethod
    def own(cls, signer: Signer) -> Self:
        """A buyer that pays for itself."""
        return cls(buyer=signer.address, signer=signer)

    @classmethod
    def granted(cls, signer: Signer, grant: Grant, domain: Domain) -> Self:
        """A key under its buyer's grant.

        Raises:
            BadRequest: the grant is another key's, or of other contracts.
        """
        if signer.address != grant.key or domain != grant.domain:
            raise BadRequest(
                ErrorCode.INVALID_REQUEST,
                f"the grant {grant.name} is for {grant.key} at {grant.domain.escrow},"
                f" this is {signer.address} at {domain.escrow}",
                hint="Use the key file that was made with it, on its own market.",
            )
        return cls(buyer=grant.buyer, signer=signer, node_ids=grant.node_ids, models=grant.models)

    @property
    def is_key(self) -> bool:
        """Whether the escrow holds it to caps."""
        return self.signer.address != self.buyer

    def check_model(self, model: str) -> None:
        """Raises `BadRequest` for a model, by the name it is asked for, that its grant does not list."""
        if not patterns.allows(self.models, model):
            raise BadRequest(
                ErrorCode.MODEL_NOT_ALLOWED,
                f"this key may buy {', '.join(self.models)}, not {model}",
                hint="Ask for one of those, or ask the buyer for a grant that lists it.",
            )

    def may_pay(self, node_id: int) -> bool:
        """Whether its node list lets it pay this node."""
        return not self.is_key or not self.node_ids or node_id in self.node_ids

    def sign(self, message: Message, domain: Domain, node_id: int) -> bytes:
        """Signature of an `Open` or `TopUp`; a key with a node list proves that this node is on it.

        Raises:
            BadRequest: it is not, so the escrow would refuse.
        """
        if not self.may_pay(node_id):
            listed = ", ".join(map(str, self.node_ids))
            raise BadRequest(
                ErrorCode.NO_SESSION,
                f"this key may pay nodes {listed}, not node {node_id}",
                hint="Choose one of them, or ask the buyer for a grant that lists it.",
            )
        signature = self.signer.sign(message, domain)
        if not self.is_key or not self.node_ids:
            return signature
        return signature + nodelist.proof(self.node_ids, node_id)
