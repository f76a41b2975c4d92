"""Turns generated tokens into response chunks: text, stop strings, whole characters, pacing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from marketplace.protocol.payloads import Answer, finish_chunk, text_chunk
from worker.inference.engine import Chunk, Finish
from worker.inference.errors import ResumeMismatch

# What tokenizers put for bytes that are not (or not yet) a character.
_PARTIAL: Final = "\N{REPLACEMENT CHARACTER}"
# A character has at most four bytes, so at most three can be waiting; some decoders show each as one.
_MOST_PARTIAL: Final = 3

_FINISHES: Final[dict[str, Finish]] = {
    "stop": "stop",
    "length": "length",
    "deadline": "deadline",
    "cancelled": "cancelled",
}

Decode = Callable[[Sequence[int]], str]


class TextBuffer:
    """Text of a growing list of tokens; lets out only what later tokens cannot change.

    Half a character waits for its other bytes, and text that may be the start of a stop string waits
    until it is one or is not.
    """

    def __init__(self, decode: Decode, stops: Sequence[str]) -> None:
        self._decode = decode
        self._stops = tuple(stops)
        self._ids: list[int] = []
        # Tokens from `_context` on are decoded: some before `_read`, because how a token reads may
        # depend on those before it. `_shown` counts characters of that text already settled.
        self._context = self._read = self._shown = 0
        self._held = ""
        self._stopped = False

    def push(self, token: int) -> str:
        """Adds a token; text that is settled now."""
        self._ids.append(token)
        text = self._decode(self._ids[self._context :])
        partial = min(_MOST_PARTIAL, len(text) - len(text.rstrip(_PARTIAL)))
        settled = len(text) - partial
        fresh = text[self._shown : settled]
        self._shown = max(self._shown, settled)
        if not partial:
            self._context, self._read = self._read, len(self._ids)
            self._shown = len(self._decode(self._ids[self._context : self._read]))
        return self._release(fresh)

    @property
    def stopped(self) -> bool:
        """Whether a stop string was reached; nothing comes after it."""
        return self._stopped

    def flush(self) -> str:
        """The rest, once no more tokens come."""
        if self._stopped:
            return ""
        text = self._decode(self._ids[self._context :])
        rest, self._held = self._held + text[self._shown :], ""
        self._shown = len(text)
        return rest

    def _release(self, fresh: str) -> str:
        self._held += fresh
        found = [at for at in map(self._held.find, self._stops) if at >= 0]
        if found:
            self._stopped = True
            free, self._held = self._held[: min(found)], ""
            return free
        keep = _overlap(self._held, self._stops)
        free = self._held[: len(self._held) - keep]
        self._held = self._held[len(free) :]
        return free


class ChunkStream:
    """The chunks of one generated answer, new or resumed.

    `count` is how many tokens it has.
    """

    def __init__(
        self,
        *,
        text: TextBuffer,
        ends: frozenset[int],
        max_tokens: int,
        chunk_tokens: int,
        chunk_ms: int,
        now_ms: Callable[[], int],
    ) -> None:
        self._text = text
        self._ends = ends
        self._max_tokens = max_tokens
        self._chunk_tokens = chunk_tokens
        self._chunk_ms = chunk_ms
        self._now_ms = now_ms
        self._ready = ""
        self._tokens: list[int] = []
        self._told: list[Mapping[str, Any]] = []
        self._index = 0
        self._sent_at_ms = 0
        self.count = 0
        self._ended = False

    def resume(self, job: str, chunks: Sequence[Chunk]) -> Finish | None:
        """Takes the state of an earlier run that emitted `chunks`; its finish, if it had come to one.

        Raises:
            ResumeMismatch: the tokens do not spell the text of the chunks.
        """
        if [chunk.index for chunk in chunks] != list(range(len(chunks))):
            raise ResumeMismatch(job, "a chunk is missing or out of order")
        answer = Answer(chunk.body for chunk in chunks)
        finish = self._replay(job, [token for chunk in chunks for token in chunk.token_ids])
        if not self._ready.startswith(answer.text):
            # Only a closing stream lets out what it held back. If no token ended it, its deadline did.
            self._ready += self._text.flush()
            finish = finish or "deadline"
        if not self._ready.startswith(answer.text):
            raise ResumeMismatch(job, "its tokens spell another text")
        self._ready = self._ready[len(answer.text) :]
        self._tokens = []
        self._index = len(chunks)
        self._ended = answer.finish is not None
        return _FINISHES.get(answer.finish or "", finish)

    def feed(self, token: int, told: Mapping[str, Any] | None = None) -> Finish | None:
        """Adds the next token, and its log-probability if one is wanted; how the answer ends, if it does."""
        self._tokens.append(token)
        self.count += 1
        if token in self._ends:
            return "stop"
        if told is not None:
            self._told.append(told)
        self._ready += self._text.push(token)
        if self._text.stopped:
            return "stop"
        return "length" if self.count >= self._max_tokens else None

    def due(self) -> Chunk | None:
        """The next chunk, if it is time for one; the first piece of text goes at once."""
        if not self._ready:
            return None
        now = self._now_ms()
        full = len(self._tokens) >= self._chunk_tokens
        if self._index and not full and now - self._sent_at_ms < self._chunk_ms:
            return None
        self._sent_at_ms = now
        return self._next(text_chunk(self._take(), self._told))

    def close(self, finish: Finish) -> list[Chunk]:
        """What is left of the text, and the finish; nothing when they are out already."""
        if self._ended:
            return []
        self._ended = True
        self._ready += self._text.flush()
        last = [self._next(text_chunk(self._take(), self._told))] if self._ready else []
        return [*last, self._next(finish_chunk(finish, self._told))]

    def _replay(self, job: str, tokens: Sequence[int]) -> Finish | None:
        finish: Finish | None = None
        for token in tokens:
            if finish:
                raise ResumeMismatch(job, "tokens go on after the end")
            finish = self.feed(token)
        return finish

    def _take(self) -> str:
        text, self._ready = self._ready, ""
        return text

    def _next(self, body: bytes) -> Chunk:
        chunk = Chunk(index=self._index, body=body, token_ids=tuple(self._tokens))
        self._index += 1
        self._tokens, self._told = [], []
        return chunk


def _overlap(text: str, stops: Sequence[str]) -> int:
    """Length of the longest end of `text` that begins a stop string."""
    longest = min(len(text), max((len(stop) - 1 for stop in stops), default=0))
    for length in range(longest, 0, -1):
        tail = text[-length:]
        if any(stop.startswith(tail) for stop in stops):
            return length
    return 0
