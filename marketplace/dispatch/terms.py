"""What a call asks for, and the times this market works with."""

from __future__ import annotations

from dataclasses import dataclass

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
    """A call paid by a held key. `payload.model` is filled in once the model's name is resolved."""

    key: Signer
    model: str
    payload: Payload
    trace_id: str
    max_cost_atoms: int | None = None
    node_id: int | None = None
    streamed: bool = False
    once: Once = Once()
