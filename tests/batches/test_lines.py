"""What a file of requests may hold, and which line is named when it does not."""

from __future__ import annotations

import json

import pytest

from marketplace.openai import batches as shapes
from marketplace.openai.batches import OVER, TRANSITIONS, BatchStatus, Reader
from marketplace.openai.requests import ChatCall
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.payloads import Answer, text_chunk
from tests.batches.support import CHAT, EMBED, chat_line, embed_line, jsonl

GOOD = json.dumps(chat_line(1)).encode()


def read(*lines: bytes, most_lines: int = 100, most_bytes: int = 10_000) -> Reader:
    reader = Reader(most_lines=most_lines, most_bytes=most_bytes)
    for number, raw in enumerate(lines, 1):
        reader.take(number, raw)
    return reader


def changed(**fields: object) -> bytes:
    return json.dumps(chat_line(2) | fields).encode()


BAD = {
    "not UTF-8": (b'{"a": "\xff"}', "line 2: it is not UTF-8"),
    "a byte order mark": (b"\xef\xbb\xbf" + GOOD, "line 2: it begins with a byte order mark"),
    "not JSON": (b"{", "line 2: it is not JSON"),
    "not a number": (b'{"a": NaN}', "line 2: it is not JSON"),
    "two values": (b"{} {}", "line 2: it is not JSON"),
    "too deep": (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, "line 2: it is not JSON"),
    "half a surrogate pair": (rb'{"a": "\ud800"}', "line 2: it is not JSON"),
    "not an object": (b"[1]", "line 2: it is not a JSON object"),
    "no custom_id": (b'{"url": "/v1/embeddings", "body": {}}', "line 2: custom_id: Field required"),
    "an empty custom_id": (changed(custom_id=""), "line 2: custom_id: "),
    "a custom_id with a zero byte": (changed(custom_id="a\0"), "line 2: custom_id: "),
    "a custom_id that is a number": (changed(custom_id=2), "line 2: custom_id: "),
    "a custom_id of another line": (
        changed(custom_id="call-1"),
        "line 2: custom_id 'call-1' is that of line 1",
    ),
    "another method": (changed(method="GET"), "line 2: method: "),
    "no body": (b'{"custom_id": "a", "url": "/v1/embeddings"}', "line 2: body: Field required"),
    "a body that is text": (changed(body="x"), "line 2: body: "),
    "an unknown url": (changed(url="/v1/images"), "line 2: url must be one of /v1/chat/completions, "),
    "another url than the lines before": (
        json.dumps(embed_line(2, "a")).encode(),
        "line 2: url is /v1/embeddings",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_line_is_refused_by_its_number(what: str) -> None:
    raw, said = BAD[what]
    with pytest.raises(BadRequest) as refused:
        read(GOOD, raw, most_bytes=100_000)
    assert refused.value.code is ErrorCode.INVALID_FILE
    assert refused.value.detail.startswith(said)


def test_empty_lines_are_passed_over_and_count_among_the_lines() -> None:
    assert read(b"\n", GOOD, b"  \r\n").requests == 1
    with pytest.raises(BadRequest, match="more than 2 lines"):
        read(b"\n", GOOD, b"\n", most_lines=2)


def test_long_line_and_too_many_models_are_refused() -> None:
    with pytest.raises(BadRequest, match="line 1 has more than 20 bytes") as refused:
        read(GOOD, most_bytes=20)
    assert refused.value.code is ErrorCode.BODY_TOO_LARGE
    many = [json.dumps(chat_line(i, model=f"m{i}")).encode() for i in range(17)]
    assert read(*many[:16]).requests == 16
    with pytest.raises(BadRequest, match="line 17: more than 16 models"):
        read(*many)


def test_file_knows_where_its_lines_go() -> None:
    assert (read(GOOD).url, read(json.dumps(embed_line(1, "a")).encode()).url) == (CHAT, EMBED)


BAD_BODIES = {
    "an unknown role": (
        {"messages": [{"role": "tool", "content": "x"}]},
        "invalid_request",
        "messages.0.role",
    ),
    "no message": ({"messages": []}, "invalid_request", "messages"),
    "a stream": ({"stream": True}, "unsupported", "stream"),
    "two answers": ({"n": 2}, "unsupported", "n"),
    "tools": ({"tools": [{"type": "function"}]}, "unsupported", "tools"),
    "an infinite temperature": ({"temperature": 1e999}, "invalid_request", "temperature"),
}


@pytest.mark.parametrize("what", BAD_BODIES)
def test_body_is_read_as_its_route_reads_it(what: str) -> None:
    change, code, param = BAD_BODIES[what]
    line = chat_line(1)
    entry = shapes.Entry(custom_id="a", url=CHAT, body=line["body"] | change)
    with pytest.raises(BadRequest) as refused:
        shapes.payload_of(shapes.call_of(entry), 7)
    assert (refused.value.code, refused.value.values["param"]) == (code, param)


def test_seed_is_the_calls_own_or_a_fresh_one() -> None:
    def seed(**body: object) -> object:
        entry = shapes.read_entry(1, jsonl([chat_line(1, **body)]))
        return shapes.payload_of(shapes.call_of(entry), 7).model_dump()["seed"]

    assert (seed(), seed(seed=3)) == (7, 3)


def test_answer_with_half_a_surrogate_pair_is_still_a_line() -> None:
    entry = shapes.read_entry(1, GOOD)
    call = shapes.call_of(entry)
    assert isinstance(call, ChatCall)
    body = shapes.answer_of(call, "job_a", 1, Answer([text_chunk("é")]))
    body["choices"][0]["message"]["content"] += "\ud800"
    raw = shapes.answered("batch_req_1", "a", body)
    assert raw.endswith(b"\n")
    assert json.loads(raw)["response"]["body"]["choices"][0]["message"]["content"] == "é\ud800"


def test_line_of_an_error_file_says_that_nothing_was_charged() -> None:
    problem = BadRequest(ErrorCode.UNSUPPORTED, "n is not supported", param="n")
    line = json.loads(shapes.refused("batch_req_1", "a", problem))
    assert (line["response"]["status_code"], line["response"]["body"]["charged"]) == (422, False)
    assert line["response"]["body"]["error"]["param"] == "n"
    assert line["error"] == {"code": "unsupported", "message": "n is not supported", "charged": False}
    never = json.loads(shapes.unstarted("batch_req_1", "a", BatchStatus.EXPIRED))
    assert (never["response"], never["error"]["code"]) == (None, "batch_expired")


def test_every_batch_can_end_and_none_moves_after_that() -> None:
    reached = {after for moves in TRANSITIONS.values() for after in moves} | {BatchStatus.VALIDATING}
    assert reached == set(BatchStatus) == set(TRANSITIONS)
    assert {"completed", "failed", "cancelled", "expired"} == OVER
