"""What a call asks for, and the times this market works with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from marketplace.protocol.payloads import Payload
from marketplace.protocol.signing import Signer


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Times this market works with, in ms.

    Attributes:
        lease_ms: how long a node keeps an order without a heartbeat.
        delivery_grace_ms: how long past its deadline a receipt may still arrive.
    """

    lease_ms: int = 10_000
    heartbeat_ms: int = 2_000
    job_timeout_ms: int = 120_000
    delivery_grace_ms: int = 1_500


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A call paid by a held key. `payload.model` is filled in once the model's name is resolved.

    Attributes:
        idempotency: digest of the caller's own idempotency key; the same one gives the same job.
        fingerprint: digest of the call as asked; `repeated` says that the client has sent it before.
        offer_hash: the only offer wanted; None for any.
        salt: of the order, where it was promised before; None for a fresh one.
        payment: what its x402 payment came to; None for a call with a key.
    """

    key: Signer
    model: str
    payload: Payload
    trace_id: str
    max_cost_atoms: int | None = None
    node_id: int | None = None
    streamed: bool = False
    idempotency: str | None = None
    fingerprint: str = ""
    repeated: bool = False
    offer_hash: str | None = None
    salt: bytes | None = None
    payment: Mapping[str, Any] | None = None
