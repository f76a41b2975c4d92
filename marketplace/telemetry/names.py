"""Every log event, span and metric, named and documented once.

Labels are bounded: no addresses, ids or free text. Units are in the name, in base units.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Log(StrEnum):
    """Event names of log lines; the rest of a line is values by key."""

    STARTED = "started"
    STOPPED = "stopped"
    LOOP_FAILED = "loop_failed"
    REQUEST_SERVED = "request_served"
    REQUEST_FAILED = "request_failed"
    REQUEST_REFUSED = "request_refused"
    NODE_CONNECTED = "node_connected"
    NODE_DISCONNECTED = "node_disconnected"
    NODE_REFUSED = "node_refused"
    OFFERS_TAKEN = "offers_taken"
    JOB_ORDERED = "job_ordered"
    JOB_LEASED = "job_leased"
    JOB_HANDED_OVER = "job_handed_over"
    JOB_CANCELLED = "job_cancelled"
    JOB_DELIVERED = "job_delivered"
    JOB_ACKNOWLEDGED = "job_acknowledged"
    JOB_SETTLED = "job_settled"
    JOB_ENDED = "job_ended"
    LEASE_LOST = "lease_lost"
    RACE_LOST = "race_lost"
    SCRUB_WAITS = "scrub_waits"
    RATE_STORE_FAILED = "rate_store_failed"
    RECEIPT_SIGNED = "receipt_signed"
    RECEIPT_REFUSED = "receipt_refused"
    VOUCHER_SIGNED = "voucher_signed"
    VOUCHER_REFUSED = "voucher_refused"
    VOUCHER_SKIPPED = "voucher_skipped"
    CLAIM_PENDING = "claim_pending"
    CLAIM_SHORT = "claim_short"
    CLAIM_HELD = "claim_held"
    CLAIM_ENDED = "claim_ended"
    BATCH_ACCEPTED = "batch_accepted"
    BATCH_WAITS = "batch_waits"
    BATCH_ENDED = "batch_ended"
    SESSION_OPENED = "session_opened"
    SESSION_CLOSED = "session_closed"
    CONTRACTS_DEPLOYED = "contracts_deployed"
    CHAIN_TROUBLE = "chain_trouble"
    CHAIN_FOLLOWED = "chain_followed"
    CHAIN_REORGED = "chain_reorged"
    TX_SIGNED = "tx_signed"
    TX_NOT_BROADCAST = "tx_not_broadcast"
    TX_CONFIRMED = "tx_confirmed"
    TX_REVERTED = "tx_reverted"
    TX_REORGED = "tx_reorged"
    TX_DISPLACED = "tx_displaced"
    MODEL_LOADED = "model_loaded"
    MODEL_FAILED = "model_failed"
    ENGINE_STUCK = "engine_stuck"
    METER_MISSING = "meter_missing"
    WEBHOOK_DISABLED = "webhook_disabled"
    X402_OFF = "x402_off"


LOG_DOCS: Final[dict[Log, str]] = {
    Log.STARTED: "A process or loop is up.",
    Log.STOPPED: "A process or loop ended in order.",
    Log.LOOP_FAILED: "A loop's turn raised what nobody expected; the loop goes on.",
    Log.REQUEST_SERVED: "An HTTP request was answered.",
    Log.REQUEST_FAILED: "An HTTP request met our own defect; the traceback follows.",
    Log.REQUEST_REFUSED: "An HTTP request was the caller's fault; the code says why.",
    Log.NODE_CONNECTED: "A node proved its key and its link is up.",
    Log.NODE_DISCONNECTED: "A node's link ended.",
    Log.NODE_REFUSED: "A node's hello or frame was refused.",
    Log.OFFERS_TAKEN: "A node's offers replaced its former ones.",
    Log.JOB_ORDERED: "A signed order was accepted and stored.",
    Log.JOB_LEASED: "A node holds the job's lease.",
    Log.JOB_HANDED_OVER: "A worker that stops left a job to be resumed by another.",
    Log.JOB_CANCELLED: "A buyer wants no more of a job; it ends with what it has.",
    Log.JOB_DELIVERED: "Receipt and response are stored.",
    Log.JOB_ACKNOWLEDGED: "A voucher covers the job.",
    Log.JOB_SETTLED: "The chain paid the job.",
    Log.JOB_ENDED: "The job ended without payment; the reason is in the line.",
    Log.LEASE_LOST: "A lease lapsed; the job is ordered again.",
    Log.RATE_STORE_FAILED: "The store of call counts does not answer; nobody is refused meanwhile.",
    Log.SCRUB_WAITS: "A reader kept the log of writes; what was deleted leaves it at the next sweep.",
    Log.RACE_LOST: "Somebody else moved a row on first; the result was dropped.",
    Log.RECEIPT_SIGNED: "A node's receipt is in its ledger.",
    Log.RECEIPT_REFUSED: "A receipt does not fit its order or response.",
    Log.VOUCHER_SIGNED: "A key accepted a prefix of its session's jobs.",
    Log.VOUCHER_REFUSED: "A voucher does not fit the receipts.",
    Log.VOUCHER_SKIPPED: "The escrow skipped a voucher; the status says why.",
    Log.CLAIM_PENDING: "The chain has a node's claim; its receipts can be disputed until it is final.",
    Log.CLAIM_SHORT: "A claim leaves receipts out, or was refused; the reason says why.",
    Log.CLAIM_HELD: "Receipts of a claim are disputed; the court decides about them.",
    Log.CLAIM_ENDED: "Nothing more comes of a claim; the session paid this much since it was made.",
    Log.BATCH_ACCEPTED: "A file of calls was taken in; the key can pay all of them.",
    Log.BATCH_WAITS: "Lines of a batch cannot be placed now; the reason is in the line.",
    Log.BATCH_ENDED: "Every line of a batch has its answer or its problem.",
    Log.SESSION_OPENED: "The chain opened a session.",
    Log.SESSION_CLOSED: "The chain closed a session and returned the rest.",
    Log.CONTRACTS_DEPLOYED: "Contracts were deployed to a chain.",
    Log.CHAIN_TROUBLE: "The chain or its RPC did not answer as it should.",
    Log.CHAIN_FOLLOWED: "The follower took in new blocks.",
    Log.CHAIN_REORGED: "The follower rolled back blocks that are no longer the chain's.",
    Log.TX_SIGNED: "A transaction's bytes are durable.",
    Log.TX_NOT_BROADCAST: "The node did not take the bytes; they are sent again later.",
    Log.TX_CONFIRMED: "A transaction succeeded, deep enough.",
    Log.TX_REVERTED: "A transaction was mined and refused.",
    Log.TX_REORGED: "A mined transaction is no longer in the chain; its bytes are sent again.",
    Log.TX_DISPLACED: "Another transaction took the nonce; this one can never be mined.",
    Log.MODEL_LOADED: "A model's weights are in memory and its canary passed.",
    Log.MODEL_FAILED: "A model could not be loaded.",
    Log.ENGINE_STUCK: "An engine's step did not end in time; the worker ends, and its jobs go on elsewhere.",
    Log.WEBHOOK_DISABLED: "A webhook took nothing for too long, or is gone; nothing more is sent there.",
    Log.METER_MISSING: "An energy counter cannot be read; figures come from the next best source.",
    Log.X402_OFF: "Nobody can pay without a key, because nothing can be signed for the token.",
}


class Span(StrEnum):
    """Stages of a job, as the label `stage` of `watt_job_stage_seconds`."""

    DISPATCH = "dispatch"
    QUEUE = "queue"
    INFERENCE = "inference"
    DELIVER = "deliver"


SPAN_DOCS: Final[dict[Span, str]] = {
    Span.DISPATCH: "From the stored order to the node's acceptance.",
    Span.QUEUE: "From the stored order until a worker of the node starts on it.",
    Span.INFERENCE: "Running the model.",
    Span.DELIVER: "From the signed receipt to the gateway's disk.",
}


class Kind(StrEnum):
    """What a metric is, as Prometheus means it."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One metric. `buckets` are a histogram's upper bounds in its unit."""

    name: str
    kind: Kind
    doc: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


_FAST_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_JOB_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)

_COUNTER, _GAUGE, _HISTOGRAM = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM
METRICS: Final = (
    MetricSpec(
        "watt_http_requests_total", _COUNTER, "HTTP requests answered.", ("method", "route", "status")
    ),
    MetricSpec(
        "watt_http_request_seconds",
        _HISTOGRAM,
        "Time to answer an HTTP request.",
        ("method", "route"),
        _FAST_SECONDS,
    ),
    MetricSpec("watt_jobs_total", _COUNTER, "Jobs that ended, by how.", ("task", "end")),
    MetricSpec("watt_batch_lines_total", _COUNTER, "Lines of batches that ended, by how.", ("end",)),
    MetricSpec(
        "watt_job_stage_seconds", _HISTOGRAM, "Time a job spent in a stage.", ("stage",), _JOB_SECONDS
    ),
    MetricSpec(
        "watt_time_to_first_token_seconds",
        _HISTOGRAM,
        "Order to first output chunk.",
        ("task",),
        _JOB_SECONDS,
    ),
    MetricSpec("watt_tokens_total", _COUNTER, "Model tokens billed.", ("task", "direction")),
    MetricSpec("watt_queue_depth", _GAUGE, "Jobs that wait for a slot."),
    MetricSpec("watt_nodes_connected", _GAUGE, "Nodes with a link to this gateway."),
    MetricSpec("watt_refusals_total", _COUNTER, "Requests refused, by error code.", ("code",)),
    MetricSpec("watt_leases_lost_total", _COUNTER, "Leases that lapsed before a receipt came."),
    MetricSpec("watt_vouchers_total", _COUNTER, "Vouchers taken or refused.", ("result",)),
    MetricSpec("watt_settlements_total", _COUNTER, "Sessions paid out on-chain."),
    MetricSpec("watt_settled_atoms_total", _COUNTER, "Money settled, in atoms."),
    MetricSpec("watt_settlement_gas_total", _COUNTER, "Gas of settlement transactions."),
    MetricSpec(
        "watt_vouchers_skipped_total", _COUNTER, "Vouchers the escrow skipped, by status.", ("status",)
    ),
    MetricSpec("watt_refunds_total", _COUNTER, "Jobs that cost nothing in the end.", ("reason",)),
    MetricSpec("watt_escrow_locked_atoms", _GAUGE, "Money in open sessions that is not paid yet."),
    MetricSpec("watt_indexer_lag_blocks", _GAUGE, "Blocks between the chain's head and what is stored."),
    MetricSpec("watt_reorgs_total", _COUNTER, "Reorganisations rolled back."),
    MetricSpec("watt_outbox_pending", _GAUGE, "Transactions wanted or sent but not confirmed."),
    MetricSpec("watt_tx_sent_total", _COUNTER, "Transactions that reached an end or fell back.", ("state",)),
    MetricSpec("watt_webhook_deliveries_total", _COUNTER, "Webhook messages sent, by result.", ("result",)),
    MetricSpec("watt_rpc_failures_total", _COUNTER, "Chain reads and sends that failed."),
    MetricSpec("watt_node_joules_total", _COUNTER, "Energy of inference, in joules.", ("method",)),
    MetricSpec("watt_node_idle_joules_total", _COUNTER, "Energy drawn that no job was charged.", ("method",)),
    MetricSpec("watt_node_worker_up", _GAUGE, "Whether the node's infer worker is there: 1 or 0."),
    MetricSpec("watt_node_running_jobs", _GAUGE, "Jobs a worker has claimed."),
    MetricSpec("watt_node_batch_size", _GAUGE, "Sequences in the engine's last step."),
    MetricSpec("watt_node_tokens_per_second", _GAUGE, "Output tokens in the last second."),
    MetricSpec("watt_node_memory_bytes", _GAUGE, "Memory of the infer process and its GPU.", ("device",)),
    MetricSpec("watt_node_temperature_celsius", _GAUGE, "Temperature, where it is known.", ("device",)),
    MetricSpec("watt_node_device_seconds_total", _COUNTER, "Device time of inference.", ("task",)),
    MetricSpec("watt_reconcile_difference_atoms", _GAUGE, "Store against chain; 0 when all is well."),
)
