from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketplace.protocol.payloads import Answer, text_chunk
from worker.inference.engine import Chunk
from worker.inference.errors import ResumeMismatch
from worker.inference.stream import ChunkStream, TextBuffer

END = 256
PARTIAL = "\N{REPLACEMENT CHARACTER}"


def lossy(tokens: Sequence[int]) -> str:
    """One token a byte, as byte-level tokenizers decode."""
    return bytes(token for token in tokens if token != END).decode(errors="replace")


def byte_by_byte(tokens: Sequence[int]) -> str:
    """As tokenizers with byte fallback do: one mark for each byte of an unfinished character."""
    data = bytes(token for token in tokens if token != END)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        return data[: error.start].decode() + PARTIAL * (len(data) - error.start)


def stream(*, stops=(), max_tokens=1000, chunk_tokens=8, chunk_ms=150, now_ms=lambda: 0) -> ChunkStream:
    return ChunkStream(
        text=TextBuffer(lossy, stops),
        ends=frozenset({END}),
        max_tokens=max_tokens,
        chunk_tokens=chunk_tokens,
        chunk_ms=chunk_ms,
        now_ms=now_ms,
    )


def write(out: ChunkStream, tokens: Sequence[int]) -> list[Chunk]:
    chunks = []
    for token in tokens:
        finish = out.feed(token)
        if finish:
            return [*chunks, *out.close(finish)]
        if chunk := out.due():
            chunks.append(chunk)
    return chunks


@given(st.text(max_size=40), st.sampled_from([lossy, byte_by_byte]))
def test_characters_are_never_split(text: str, decode) -> None:
    text = text.replace(PARTIAL, "?")
    buffer = TextBuffer(decode, ())
    parts = [buffer.push(token) for token in text.encode()]
    assert all(PARTIAL not in part for part in parts)
    assert "".join(parts) + buffer.flush() == text


@given(st.lists(st.integers(0, 255), max_size=40))
def test_bytes_that_are_no_text_still_come_out_once(tokens: list[int]) -> None:
    buffer = TextBuffer(lossy, ())
    assert "".join(buffer.push(token) for token in tokens) + buffer.flush() == lossy(tokens)


@given(st.text("ab€", max_size=30), st.lists(st.text("ab€", min_size=1, max_size=4), min_size=1, max_size=3))
def test_text_ends_before_the_first_stop_string(text: str, stops: list[str]) -> None:
    buffer = TextBuffer(lossy, stops)
    out = ""
    for token in text.encode():
        out += buffer.push(token)
        if buffer.stopped:
            break
    out += buffer.flush()
    # A stop string counts when its last character is there; of those ending together the earliest begun.
    ends = [at + len(stop) for stop in stops for at in range(len(text)) if text.startswith(stop, at)]
    if not ends:
        assert out == text
    else:
        first = min(ends)
        begun = min(text[:first].find(stop) for stop in stops if stop in text[:first])
        assert out == text[:begun]


def test_start_of_a_stop_string_waits_and_is_let_out_when_it_is_none() -> None:
    buffer = TextBuffer(lossy, ["<stop>"])
    assert [buffer.push(token) for token in b"a<st"] == ["a", "", "", ""]
    assert buffer.push(ord("x")) == "<stx"
    assert not buffer.stopped


def test_first_text_goes_at_once_then_every_few_tokens() -> None:
    chunks = write(stream(), b"0123456789abcdefghi")
    assert [Answer([chunk.body]).text for chunk in chunks] == ["0", "12345678", "9abcdefg"]
    assert [len(chunk.token_ids) for chunk in chunks] == [1, 8, 8]


def test_slow_text_goes_when_the_time_is_up() -> None:
    clock = iter(range(0, 10_000, 100))
    chunks = write(stream(now_ms=lambda: next(clock)), b"abcdef")
    assert [Answer([chunk.body]).text for chunk in chunks] == ["a", "bc", "de"]


def test_end_token_is_counted_but_not_shown() -> None:
    out = stream()
    chunks = write(out, [*b"hi", END])
    assert (Answer(chunk.body for chunk in chunks).text, out.count) == ("hi", 3)
    assert chunks[-1].body == b'{"finish":"stop"}'
    assert [token for chunk in chunks for token in chunk.token_ids] == [*b"hi", END]


def test_length_ends_after_max_tokens_and_an_end_token_there_is_a_stop() -> None:
    assert write(stream(max_tokens=3), b"abcdef")[-1].body == b'{"finish":"length"}'
    assert write(stream(max_tokens=3), [*b"ab", END])[-1].body == b'{"finish":"stop"}'


def test_unfinished_character_is_shown_as_such_at_the_end() -> None:
    chunks = write(stream(max_tokens=3), "a€".encode())
    assert Answer(chunk.body for chunk in chunks).text == "a" + PARTIAL


@given(
    st.lists(st.one_of(st.sampled_from(list("ab€🎉".encode())), st.just(END)), max_size=40),
    st.integers(0, 40),
    st.sampled_from([(), ("ba",), ("€a", "b")]),
)
def test_resumed_answer_is_the_whole_answer(tokens: list[int], kept: int, stops: tuple[str, ...]) -> None:
    settings = {"stops": stops, "max_tokens": 30, "chunk_tokens": 3}
    whole = write(stream(**settings), tokens)
    again = stream(**settings)
    head = whole[:kept]
    finish = again.resume("job", head)
    count = again.count
    rest = again.close(finish) if finish else write(again, tokens[count:])
    answer, expected = Answer(c.body for c in [*head, *rest]), Answer(c.body for c in whole)
    if whole and expected.finish:
        assert (answer.text, answer.finish) == (expected.text, expected.finish)
        assert [t for c in [*head, *rest] for t in c.token_ids] == [t for c in whole for t in c.token_ids]
    else:
        # Not ended: what is still held back may differ by where the last chunk was cut.
        assert answer.text.startswith(expected.text) or expected.text.startswith(answer.text)
    assert [c.index for c in [*head, *rest]] == list(range(len(head) + len(rest)))


def test_answer_cut_between_its_last_text_and_its_finish_ends_by_deadline() -> None:
    out = stream(stops=["bcd"], chunk_tokens=1)
    head = write(out, b"ab")
    head += out.close("deadline")[:1]
    assert Answer(chunk.body for chunk in head).text == "ab"
    again = stream(stops=["bcd"], chunk_tokens=1)
    assert again.resume("job", head) == "deadline"
    assert [chunk.body for chunk in again.close("deadline")] == [b'{"finish":"deadline"}']


@pytest.mark.parametrize(
    "chunks",
    [
        (Chunk(index=1, body=text_chunk("a"), token_ids=(97,)),),
        (Chunk(index=0, body=text_chunk("b"), token_ids=(97,)),),
        (Chunk(index=0, body=text_chunk("a"), token_ids=(97, END, 98)),),
    ],
    ids=["gap", "other text", "tokens after the end"],
)
def test_chunks_of_another_answer_are_not_continued(chunks: tuple[Chunk, ...]) -> None:
    with pytest.raises(ResumeMismatch) as caught:
        stream().resume("job", chunks)
    assert caught.value.code == "internal"
