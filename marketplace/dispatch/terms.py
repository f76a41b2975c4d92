"""What a call asks for, and the times this market works with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from marketplace.protocol.payloads import Payload
from marketplace.protocol.signing import Signer


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Times this market works with, in ms, and what else its owner may set.

    Attributes:
        lease_ms: how long a node keeps an order without a heartbeat.
        delivery_grace_ms: how long past its deadline a receipt may still arrive.
        keep_ms: how long input and output are kept from the call on, where its buyer says nothing.
        most_keep_ms: the longest a buyer can have them kept.
        webhook_timeout_ms: for one sending, from the name to the end of the answer.
        webhook_allow_loopback: whether receivers on this machine are sent to.
    """

    lease_ms: int = 10_000
    heartbeat_ms: int = 2_000
    job_timeout_ms: int = 120_000
    delivery_grace_ms: int = 1_500
    keep_ms: int = 24 * 60 * 60 * 1000
    most_keep_ms: int = 30 * 24 * 60 * 60 * 1000
    webhook_timeout_ms: int = 10_000
    webhook_allow_loopback: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Once:
    """What tells a call from its own repetition; `dispatch.once` reads it.

    Attributes:
        name: digest of what the caller calls it by; the same name is the same job. None: it has none.
        fingerprint: digest of the call as asked.
        retries: how often the client says it has sent this call before.
    """

    name: str | None = None
    fingerprint: str = ""
    retries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A call paid by a held key. `payload.model` is filled in once the model's name is resolved.

    Attributes:
        keep_ms: how long input and output are kept from now on; None for the market's own term.
        echo: what its answer says back and the payload does not hold, as JSON.
        offer_hash: the only offer wanted; None for any.
        salt: of the order, where it was promised before; None for a fresh one.
        payment: what its x402 payment came to; None for a call with a key.
        counted: its input units by a node's own count; None: not asked for.
    """

    key: Signer
    model: str
    payload: Payload
    trace_id: str
    max_cost_atoms: int | None = None
    node_id: int | None = None
    streamed: bool = False
    keep_ms: int | None = None
    once: Once = Once()
    echo: str = ""
    offer_hash: str | None = None
    salt: bytes | None = None
    payment: Mapping[str, Any] | None = None
    counted: int | None = None
