"""Payloads, annex and frames: closed, strict, and the same bytes on both sides."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from marketplace.protocol import wire
from marketplace.protocol.annex import NO_TRACE, Annex, AnnexV1, Profile, Sampling, exec_hash, read_annex
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.payloads import (
    Answer,
    ChatMessage,
    ChatPayload,
    EmbedPayload,
    embeddings_chunk,
    encode_payload,
    finish_chunk,
    parse_payload,
    text_chunk,
    units_in_ceiling,
    units_out_ceiling,
)
from marketplace.protocol.trace import pack_tokens

MODEL = "0x" + "ab" * 32
CHAT = ChatPayload(model=MODEL, messages=(ChatMessage(role="user", content="Grüße 👋"),), max_tokens=9)
EMBED = EmbedPayload(model=MODEL, input=("a", "bé"))


@pytest.mark.parametrize("payload", [CHAT, EMBED])
def test_payload_round_trips(payload: ChatPayload | EmbedPayload) -> None:
    assert parse_payload(encode_payload(payload)) == payload


def changed(payload: ChatPayload | EmbedPayload, **change: Any) -> bytes:
    return json.dumps(json.loads(encode_payload(payload)) | change).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"task":"dance"}',
        changed(CHAT, extra=1),
        changed(CHAT, max_tokens=0),
        changed(CHAT, max_tokens=1.5),
        changed(CHAT, max_tokens=True),
        changed(CHAT, max_tokens="7"),
        changed(CHAT, temperature_milli=-1),
        changed(CHAT, messages=[]),
        changed(CHAT, messages=[{"role": "boss", "content": ""}]),
        changed(CHAT, seed=1 << 64),
        changed(CHAT, model="smollm2"),
        changed(CHAT, v=2),
        changed(EMBED, input=[]),
        changed(EMBED, input=[""]),
        changed(EMBED, input=[1]),
        changed(EMBED, input=["a"] * 2049),
        b'{"v":1,"task":"embed","model":"' + MODEL.encode() + b'","input":["\\ud800"]}',
    ],
)
def test_bad_payload_is_a_bad_request(data: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_payload(data)
    assert caught.value.code == ErrorCode.INVALID_REQUEST


def test_ceiling_counts_bytes_not_characters() -> None:
    assert units_in_ceiling(EMBED) == 1 + 3 + 2 * 4
    assert units_in_ceiling(CHAT) == len("Grüße 👋".encode()) + 16 + 64
    assert (units_out_ceiling(CHAT), units_out_ceiling(EMBED)) == (9, 0)


def test_answer_folds_text_and_vectors() -> None:
    answer = Answer([text_chunk("Hel"), text_chunk("lo 👋"), finish_chunk("stop")])
    assert (answer.text, answer.finish) == ("Hello 👋", "stop")
    vectors = [struct.pack("<2f", 0.5, -1.0), struct.pack("<2f", 2.0, 0.0)]
    assert Answer([embeddings_chunk(0, vectors)]).floats() == [[0.5, -1.0], [2.0, 0.0]]


def test_request_without_logprobs_has_the_bytes_it_always_had() -> None:
    assert b"logprobs" not in encode_payload(CHAT)
    asked = CHAT.model_copy(update={"logprobs": 0})
    assert parse_payload(encode_payload(asked)) == asked != parse_payload(encode_payload(CHAT)) == CHAT


TOLD = {"id": 1, "token": "a", "logprob_micro": -5, "top": [{"id": 1, "token": "a", "logprob_micro": -5}]}


def test_answer_folds_logprobs_of_text_and_end() -> None:
    answer = Answer([text_chunk("a", [TOLD]), text_chunk("b"), finish_chunk("length", [TOLD])])
    assert (answer.text, answer.finish, answer.logprobs) == ("ab", "length", [TOLD, TOLD])
    with pytest.raises(ValueError, match="one field"):
        Answer([b'{"logprobs":[],"rows":[]}'])


@pytest.mark.parametrize(
    ("asked", "rows", "why"),
    [
        (None, [TOLD], "not asked for"),
        (1, [], "missing"),
        (0, [TOLD], "more alternatives"),
        (1, [TOLD | {"logprob_micro": 1}], "logprob_micro"),
        (1, [TOLD | {"logprob_micro": -0.5}], "logprob_micro"),
        (1, [{"id": 1, "token": "a", "logprob_micro": -5}], "top"),
        (1, [TOLD | {"html": "x"}], "html"),
    ],
)
def test_logprobs_that_do_not_answer_the_request_are_named(
    asked: int | None, rows: list[dict[str, Any]], why: str
) -> None:
    payload = CHAT.model_copy(update={"logprobs": asked})
    problem = payload.misfit(Answer([text_chunk("a", rows), finish_chunk("stop")]))
    assert problem is not None
    assert why in problem


def test_logprobs_that_answer_the_request_are_fine() -> None:
    payload = CHAT.model_copy(update={"logprobs": 1})
    assert payload.misfit(Answer([text_chunk("a", [TOLD]), finish_chunk("stop")])) is None
    assert payload.misfit(Answer([finish_chunk("stop")])) is None


@pytest.mark.parametrize(
    "chunk",
    [
        b"",
        b"[]",
        b"{}",
        b'{"html":"x"}',
        b'{"text":"a","finish":"b"}',
        b'{"text":"\xff"}',
        pytest.param(b"[" * 200_000, id="deep"),
    ],
)
def test_answer_refuses_foreign_chunks(chunk: bytes) -> None:
    with pytest.raises(ValueError, match=r"chunk|EOF|recursion|code point|UTF-8|utf-8"):
        Answer([chunk])


def test_answer_refuses_vectors_out_of_order() -> None:
    with pytest.raises(ValueError, match="expected 0"):
        Answer([embeddings_chunk(1, [bytes(4)])])


COMMON: dict[str, Any] = {
    "trace_id": "ab" * 16, "model": MODEL, "seed": "1", "units_in": 1, "units_out": 2, "finish": "stop",
    "device_microseconds": 3, "energy_method": "model",
}  # fmt: skip
PROFILE = Profile(engine="e", torch="t", dtype="float32", tile_rows=16)


def annex(**changes: Any) -> Annex:
    profile = changes.get("profile", PROFILE)
    sampling = Sampling(temperature_milli=800, top_p_milli=1000, max_tokens=9)
    fields = COMMON | {
        "profile": profile,
        "profile_hash": to_hex(profile.digest()),
        "sampling": sampling,
        "token_ids": pack_tokens([5, 300]),
        "trace_root": "0x" + "22" * 32,
    }
    return Annex(**fields | changes)


def test_annex_hash_binds_every_field() -> None:
    base = exec_hash(annex().encode())
    changes: dict[str, Any] = {
        "units_in": 2,
        "finish": "length",
        "energy_method": "rapl",
        "seed": "2",
        "token_ids": pack_tokens([5]),
        "trace_root": NO_TRACE,
        "sampling": None,
        "profile": PROFILE.model_copy(update={"tile_rows": 0}),
    }
    assert all(exec_hash(annex(**{name: value}).encode()) != base for name, value in changes.items())


def test_annex_has_the_bytes_that_receipts_already_hold() -> None:
    assert annex().encode() == (
        b'{"device_microseconds":3,"energy_method":"model","finish":"stop","model":"' + MODEL.encode() + b'",'
        b'"profile":{"calibration":"","context_tokens":0,"device":"","dtype":"float32","engine":"e",'
        b'"prompt_block":0,"sampler":"","template":"","threads":0,"tile_rows":16,"torch":"t","trace":""},'
        b'"profile_hash":"0x963e44d51e50c111f63f412ae1e2f0eeb1a0bb522cedbbba8526353a6c217845",'
        b'"sampling":{"max_tokens":9,"temperature_milli":800,"top_p_milli":1000},"seed":"1",'
        b'"token_ids":"BawC","trace_id":"' + b"ab" * 16 + b'","trace_root":"0x' + b"22" * 32 + b'",'
        b'"units_in":1,"units_out":2,"v":2}'
    )


def test_annexes_of_both_versions_are_read() -> None:
    old = AnnexV1(**COMMON, engine="e", torch="t", dtype="float32")
    assert read_annex(old.encode()) == old
    new = annex()
    assert read_annex(new.encode()) == new
    assert (new.engine, new.torch, new.dtype) == (old.engine, old.torch, old.dtype)


def test_annex_that_names_another_profile_or_garbled_tokens_is_no_annex() -> None:
    for changes in ({"profile_hash": "0x" + "33" * 32}, {"token_ids": "gA=="}, {"token_ids": "?"}):
        with pytest.raises(ValueError, match=r"profile_hash|token|base64|Only"):
            read_annex(json.dumps(json.loads(annex().encode()) | changes).encode())


SIGNED = wire.Signed(message=b"\x01" * 64, signature=b"\x02" * 65)
FROM_NODE: list[Any] = [
    wire.HelloFrame(hello=SIGNED),
    wire.Heartbeat(free_slots=1, queue_depth=0, loaded=[b"\1" * 32], running=[]),
    wire.Offers(offers=[SIGNED], models=[]),
    wire.Counted(number=3, units_in=5),
    wire.Counted(number=3),
    wire.Accepted(order_hash=bytes(32)),
    wire.Refused(order_hash=bytes(32), code="node_busy"),
    wire.ChunkFrame(order_hash=bytes(32), index=0, body=b"\xff\x00"),
    wire.ReceiptFrame(order_hash=bytes(32), receipt=SIGNED, annex=b"{}", chunks=1),
    wire.VoucherTaken(session_id=bytes(32), through_seq=1),
]
FROM_GATEWAY: list[Any] = [
    wire.Challenge(nonce=bytes(32), chain_id=1, escrow="0x"),
    wire.Welcome(heartbeat_ms=1, lease_ms=1),
    wire.Count(number=3, payload=b"{}"),
    wire.OrderFrame(
        job_id="job_a", trace_id="ab" * 16, order=SIGNED, salt=bytes(32), payload=b"{}", lease_until_ms=1
    ),
    wire.Lease(orders=[bytes(32)], until_ms=1),
    wire.Delivered(order_hash=bytes(32)),
    wire.Superseded(order_hash=bytes(32)),
    wire.VoucherFrame(voucher=SIGNED, trace_ids=["ab" * 16]),
    wire.Problem(code="internal", detail="x", fatal=True),
]


@pytest.mark.parametrize("frame", FROM_NODE, ids=lambda f: f.kind)
def test_node_frames_round_trip(frame: Any) -> None:
    assert wire.parse_from_node(wire.encode_frame(frame)) == frame


@pytest.mark.parametrize("frame", FROM_GATEWAY, ids=lambda f: f.kind)
def test_gateway_frames_round_trip(frame: Any) -> None:
    assert wire.parse_from_gateway(wire.encode_frame(frame)) == frame


@pytest.mark.parametrize(
    "text",
    [
        "", "{}", "null", '{"kind":"order"}', '{"kind":"nonsense"}', "[" * 5000,
        '{"kind":"heartbeat","free_slots":-1,"queue_depth":0,"loaded":[],"running":[]}',
        '{"kind":"heartbeat","free_slots":1.5,"queue_depth":0,"loaded":[],"running":[]}',
        '{"kind":"heartbeat","free_slots":1,"queue_depth":0,"loaded":["zz"],"running":[]}',
        '{"kind":"chunk","order_hash":"0x00","index":0,"body":"***"}',
        '{"kind":"accepted","order_hash":"0x00","surplus":1}',
        '{"kind":"counted","number":0,"units_in":-1}',
    ],
)  # fmt: skip
def test_malformed_frames_are_bad_requests(text: str) -> None:
    with pytest.raises(BadRequest):
        wire.parse_from_node(text)


def test_oversized_frame_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(BadRequest) as caught:
        wire.parse_from_node("x" * (wire.MAX_FRAME_BYTES + 1))
    assert caught.value.code == ErrorCode.BODY_TOO_LARGE
