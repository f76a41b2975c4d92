"""Frames between gateway and node: JSON text over one WebSocket the node opens.

    gateway → node   challenge · welcome · count · order · cancel · lease · delivered · superseded · voucher
    node → gateway   hello · heartbeat · offers · counted · accepted · refused · chunk · receipt
                     voucher_taken
    either way       problem

Signed messages travel as their canonical bytes, so that what was signed is what is stored. An order carries
its trace id. Every frame is idempotent: a link that breaks is opened again and both sides repeat themselves.
"""

from __future__ import annotations

import base64
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    TypeAdapter,
    ValidationError,
)

from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.hexes import from_hex, to_hex

VERSION: Final = 1
MAX_FRAME_BYTES: Final = 16 * 1024 * 1024
# Longer requests are not counted beforehand: the bound in bytes holds.
MAX_COUNTED_BYTES: Final = 256 * 1024


def _read_hex(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise ValueError("expected hex text")  # noqa: TRY004 - pydantic turns only ValueError into its own
    return from_hex(value)


def _read_base64(value: Any) -> bytes:
    return value if isinstance(value, bytes) else base64.b64decode(value, validate=True)


Hex = Annotated[bytes, PlainValidator(_read_hex), PlainSerializer(to_hex)]
Blob = Annotated[
    bytes, PlainValidator(_read_base64), PlainSerializer(lambda data: base64.b64encode(data).decode())
]


class Frame(BaseModel):
    """Base of all frames: strict, closed, immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Signed(Frame):
    """Canonical bytes of a message and the 65-byte signature over its digest."""

    message: Hex
    signature: Hex


class Challenge(Frame):
    """First frame of a link: sign this to prove which node you are."""

    kind: Literal["challenge"] = "challenge"
    version: int = VERSION
    nonce: Hex
    chain_id: int
    escrow: str


class HelloFrame(Frame):
    """The node's answer: a signed `Hello` over the challenge."""

    kind: Literal["hello"] = "hello"
    version: int = VERSION
    hello: Signed


class Welcome(Frame):
    """The link is up; how often to heartbeat and how long a lease lasts without one."""

    kind: Literal["welcome"] = "welcome"
    heartbeat_ms: int = Field(gt=0)
    lease_ms: int = Field(gt=0)


class OfferedModel(Frame):
    """What a node says of a model it serves.

    `canary_bps` above 0: the model is on trial under its name, and asks for that share (of 10,000) of the
    orders that go by the name. Those that go by an id are not shared out.
    """

    model_id: Hex
    name: str = Field(min_length=1, max_length=128)
    task: str = Field(pattern="^[a-z][a-z-]{0,31}$", description="A task this gateway need not know.")
    context_tokens: int = Field(gt=0)
    loaded: bool
    canary_bps: int = Field(default=0, ge=0, le=10_000)


class Offers(Frame):
    """All current offers of a node; replaces the former list."""

    kind: Literal["offers"] = "offers"
    offers: list[Signed] = Field(max_length=256)
    models: list[OfferedModel] = Field(max_length=256)


class Heartbeat(Frame):
    """A node's load, and the orders it still works on; renews their leases."""

    kind: Literal["heartbeat"] = "heartbeat"
    free_slots: int = Field(ge=0, le=65_536)
    queue_depth: int = Field(ge=0, le=1_000_000)
    loaded: list[Hex] = Field(max_length=256)
    running: list[Hex] = Field(max_length=65_536)
    draining: bool = False


class Lease(Frame):
    """The gateway's answer to a heartbeat: until when (Unix ms) each order is this node's."""

    kind: Literal["lease"] = "lease"
    orders: list[Hex]
    until_ms: int


class Count(Frame):
    """How many input units would this request be billed for? Asked before anything is ordered."""

    kind: Literal["count"] = "count"
    number: int = Field(ge=0)
    payload: Blob


class Counted(Frame):
    """The node's own count of a request's input, by the tokenizer that bills it; None: it cannot tell now."""

    kind: Literal["counted"] = "counted"
    number: int = Field(ge=0)
    units_in: int | None = Field(default=None, ge=0, lt=1 << 53)


class OrderFrame(Frame):
    """One job for this node. `order` is signed by the session's key."""

    kind: Literal["order"] = "order"
    job_id: str
    trace_id: str = Field(pattern="^[0-9a-f]{32}$")
    order: Signed
    salt: Hex
    payload: Blob
    lease_until_ms: int


class Cancel(Frame):
    """The buyer wants no more of an order: sign for what was delivered. An ended one stays as it is."""

    kind: Literal["cancel"] = "cancel"
    order_hash: Hex


class Accepted(Frame):
    """The node took the order durably."""

    kind: Literal["accepted"] = "accepted"
    order_hash: Hex


class Refused(Frame):
    """The node will not do this order; it signed nothing and never will."""

    kind: Literal["refused"] = "refused"
    order_hash: Hex
    code: str
    detail: str = ""


class ChunkFrame(Frame):
    """One response chunk, at its index."""

    kind: Literal["chunk"] = "chunk"
    order_hash: Hex
    index: int = Field(ge=0)
    body: Blob


class ReceiptFrame(Frame):
    """The signed receipt; all `chunks` chunk frames went before it on this link."""

    kind: Literal["receipt"] = "receipt"
    order_hash: Hex
    receipt: Signed
    annex: Blob
    chunks: int = Field(ge=0)


class Delivered(Frame):
    """The gateway has receipt and response on disk; the node need not send them again."""

    kind: Literal["delivered"] = "delivered"
    order_hash: Hex


class Superseded(Frame):
    """Delivered after its lease lapsed and done elsewhere: this receipt will not be paid."""

    kind: Literal["superseded"] = "superseded"
    order_hash: Hex


class VoucherFrame(Frame):
    """A key's newest voucher, and the traces of the jobs it covers for the first time."""

    kind: Literal["voucher"] = "voucher"
    voucher: Signed
    trace_ids: list[str] = Field(default_factory=list, max_length=65_536)


class VoucherTaken(Frame):
    """The node has this voucher on disk, or says why it does not accept it (`code`)."""

    kind: Literal["voucher_taken"] = "voucher_taken"
    session_id: Hex
    through_seq: int = Field(ge=0)
    code: str | None = None
    detail: str = ""


class Problem(Frame):
    """The other side's last frame was refused; `fatal` means the link closes."""

    kind: Literal["problem"] = "problem"
    code: str
    detail: str
    fatal: bool = False


FromNode = (
    HelloFrame
    | Heartbeat
    | Offers
    | Counted
    | Accepted
    | Refused
    | ChunkFrame
    | ReceiptFrame
    | VoucherTaken
    | Problem
)
FromGateway = (
    Challenge
    | Welcome
    | Count
    | OrderFrame
    | Cancel
    | Lease
    | Delivered
    | Superseded
    | VoucherFrame
    | Problem
)
_FROM_NODE: TypeAdapter[FromNode] = TypeAdapter(Annotated[FromNode, Field(discriminator="kind")])
_FROM_GATEWAY: TypeAdapter[FromGateway] = TypeAdapter(Annotated[FromGateway, Field(discriminator="kind")])


F = TypeVar("F")


def encode_frame(frame: Frame) -> str:
    """JSON text of a frame."""
    return frame.model_dump_json()


def parse_from_node(text: str | bytes) -> FromNode:
    """Frame a node sent. Raises `BadRequest`."""
    return _parse(_FROM_NODE, text)


def parse_from_gateway(text: str | bytes) -> FromGateway:
    """Frame a gateway sent. Raises `BadRequest`."""
    return _parse(_FROM_GATEWAY, text)


def _parse(adapter: TypeAdapter[F], text: str | bytes) -> F:
    if len(text) > MAX_FRAME_BYTES:
        raise BadRequest(ErrorCode.BODY_TOO_LARGE, f"frame of {len(text)} characters")
    try:
        return adapter.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadRequest(ErrorCode.MALFORMED_BODY, f"frame {where}: {first['msg']}") from error
