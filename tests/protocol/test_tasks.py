"""What holds for every task, and what each of them adds."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketplace.protocol.errors import BadRequest
from marketplace.protocol.payloads import (
    BLANK_MODEL,
    TASKS,
    Answer,
    Payload,
    build_payload,
    encode_payload,
    finish_chunk,
    parse_payload,
    rows_chunk,
    text_chunk,
    units_in_ceiling,
    units_out_ceiling,
)
from marketplace.protocol.tasks.rerank import NEAR_TIE_MILLIONTHS
from marketplace.protocol.tasks.scores import scored
from tests.answers import chunks_for

PNG = base64.b64encode(b"not looked at here").decode()
BODIES: dict[str, dict[str, Any]] = {
    "chat": {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8},
    "embed": {"input": ["one", "two"]},
    "classify": {"input": ["I loved it", "meh"], "labels": ["good", "bad"], "question": "Mood"},
    "rerank": {"query": "refunds", "documents": ["shipping", "money back"]},
    "classify-image": {"images": [PNG, PNG], "top": 2},
}


def build(task: str, **changes: Any) -> Payload:
    return build_payload(task, BLANK_MODEL, BODIES[task] | changes)


@pytest.mark.parametrize("task", TASKS)
def test_payload_has_one_byte_string_and_comes_back_from_it(task: str) -> None:
    payload = build(task)
    assert payload.task == task
    assert parse_payload(encode_payload(payload)) == payload
    assert encode_payload(parse_payload(encode_payload(payload))) == encode_payload(payload)


@pytest.mark.parametrize("task", TASKS)
def test_whole_answer_fits_and_a_part_fits_only_as_a_part(task: str) -> None:
    payload = build(task)
    chunks = chunks_for(payload)
    assert payload.misfit(Answer(chunks)) is None
    assert payload.misfit(Answer(chunks[:-1])) is not None
    assert payload.misfit(Answer(chunks[:-1]), whole=False) is None
    assert payload.shown(Answer(chunks))


@pytest.mark.parametrize("task", TASKS)
def test_answer_of_another_kind_does_not_fit(task: str) -> None:
    payload = build(task)
    others = [chunks_for(build(other)) for other in ("chat", "embed", "rerank") if other != task]
    assert all(payload.misfit(Answer(chunks)) for chunks in others)


@pytest.mark.parametrize("task", ["classify", "rerank", "classify-image"])
def test_more_rows_than_inputs_do_not_fit_even_as_a_part(task: str) -> None:
    payload = build(task)
    first = Answer(chunks_for(payload)).rows[0]
    answer = Answer([rows_chunk(0, [first] * 3)])
    assert "3 rows for 2 inputs" in (payload.misfit(answer, whole=False) or "")


@pytest.mark.parametrize(
    ("task", "row"),
    [
        ("classify", scored(["good", "ugly"], [2, 1])),
        ("classify", scored(["good"], [2])),
        ("classify", {"scores": []}),
        ("classify", {"scores": [{"label": "good", "millionths": 0.5}, {"label": "bad", "millionths": 1}]}),
        ("rerank", {"millionths": "1"}),
        ("rerank", {"millionths": 1, "more": 1}),
        ("rerank", {}),
        ("classify-image", scored(["a", "b", "c"], [3, 2, 1])),
    ],
)
def test_row_that_is_not_what_was_asked_for_does_not_fit(task: str, row: dict[str, Any]) -> None:
    assert build(task).misfit(Answer([rows_chunk(0, [row, row])])) is not None


def test_rows_out_of_order_are_no_answer() -> None:
    with pytest.raises(ValueError, match="row 1 arrived, expected 0"):
        Answer([rows_chunk(1, [{"millionths": 1}])])


@pytest.mark.parametrize(
    ("task", "changes", "reason"),
    [
        ("classify", {"labels": ["one"]}, "labels"),
        ("classify", {"labels": ["a", "a"]}, "named twice"),
        ("classify", {"labels": [str(i) for i in range(65)]}, "labels"),
        ("classify", {"input": [""]}, "input.0"),
        ("classify", {"question": ""}, "question"),
        ("rerank", {"query": ""}, "query"),
        ("rerank", {"documents": []}, "documents"),
        ("rerank", {"seed": 1}, "seed"),
        ("classify-image", {"images": [PNG] * 17}, "images"),
        ("classify-image", {"images": ["not base64!"]}, "images.0"),
        ("classify-image", {"top": 0}, "top"),
        ("classify-image", {"top": "3"}, "top"),
    ],
)
def test_value_out_of_its_range_is_refused_by_name(task: str, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadRequest, match=reason):
        build(task, **changes)


@pytest.mark.parametrize("data", [b"", b"[]", b'{"task":"sing"}', b'{"task":7}', b"[" * 100_000, b"\xff"])
def test_bytes_of_no_known_task_are_refused(data: bytes) -> None:
    with pytest.raises(BadRequest):
        parse_payload(data)


def test_ceiling_counts_every_label_of_every_text() -> None:
    one = units_in_ceiling(build("classify", input=["x"]))
    assert units_in_ceiling(build("classify", input=["x", "x"])) == 2 * one
    more = units_in_ceiling(build("classify", input=["x"], labels=["good", "bad", "awful"]))
    assert more == one + len(b"awful") + 4


def test_ceiling_counts_the_query_with_every_document() -> None:
    one = units_in_ceiling(build("rerank", documents=["x"]))
    assert units_in_ceiling(build("rerank", documents=["x"] * 5)) == 5 * one


def test_an_image_is_one_unit() -> None:
    assert units_in_ceiling(build("classify-image")) == 2


def test_only_what_generates_has_output_units() -> None:
    assert {task: units_out_ceiling(build(task)) for task in TASKS} == dict.fromkeys(TASKS, 0) | {"chat": 8}


def test_documents_are_shown_best_first_and_near_ties_said() -> None:
    far, near = -1_000_000, -1_000_000 - NEAR_TIE_MILLIONTHS + 1
    answer = Answer([rows_chunk(0, [{"millionths": m} for m in (-5_000_000, near, far)])])
    shown = build("rerank", documents=["a", "b", "c"]).shown(answer)["results"]
    assert [(row["index"], row["near_tie"]) for row in shown] == [(2, True), (1, False), (0, False)]


@given(st.lists(st.integers(-(10**9), 10**9), min_size=1, max_size=64), st.integers(1, 64))
def test_labels_fall_and_equal_ones_keep_their_order(millionths: list[int], top: int) -> None:
    labels = [str(i) for i in range(len(millionths))]
    scores = scored(labels, millionths, top)["scores"]
    keys = [(-score["millionths"], int(score["label"])) for score in scores]
    assert keys == sorted(keys)
    assert len(scores) == min(top, len(labels))


def test_chat_without_an_end_is_no_whole_answer() -> None:
    assert build("chat").misfit(Answer([text_chunk("Hi")])) == "the text has no end"
    assert build("chat").misfit(Answer([text_chunk("Hi"), finish_chunk("stop")])) is None
