"""A server's stream of deltas made into chunks and an outcome."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from marketplace.protocol.answers import Answer, finish_chunk, text_chunk
from worker.inference.engine import Chunk, EngineJob, EngineSettings, Finish, Outcome
from worker.inference.errors import EngineFailed, ResumeMismatch
from worker.inference.prompt import ChatTokenizer, Prompt
from worker.metering import Reading

_FINISHES: Final[dict[str, Finish]] = {"stop": "stop", "length": "length"}
# How an answer ends that the server had not finished.
_CUT: Final[tuple[Finish, ...]] = ("deadline", "cancelled")
_KEPT_FINISHES: Final[dict[str, Finish]] = {**_FINISHES, **{finish: finish for finish in _CUT}}
_NOTHING_READ: Final = Reading(device_microseconds=0, energy_millijoules=0, energy_method="none")


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """What one event brings. `done` is the stream's own end."""

    text: str = ""
    finish: str | None = None
    units_in: int | None = None
    units_out: int | None = None
    done: bool = False


def request_of(job: EngineJob, prompt: Prompt, model: str) -> dict[str, Any]:
    """Body of the call. The seed is the job's, cut to the 63 bits servers take."""
    payload = prompt.payload
    return {
        "model": model,
        "messages": [message.model_dump() for message in payload.messages],
        "max_tokens": prompt.max_tokens,
        "temperature": payload.temperature_milli / 1000,
        "top_p": payload.top_p_milli / 1000,
        "seed": job.seed % (1 << 63),
        "stop": list(payload.stop) or None,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def delta_of(data: str) -> Delta:
    """Delta of an event's data.

    Raises:
        EngineFailed: the server reports an error.
        ValueError, LookupError, TypeError, AttributeError: it is not readable.
    """
    body = json.loads(data)
    if "error" in body:
        raise EngineFailed("the server broke off with an error")
    usage = body.get("usage") or {}
    choice = (body.get("choices") or [{}])[0]
    return Delta(
        text=(choice.get("delta") or {}).get("content") or "",
        finish=choice.get("finish_reason"),
        units_in=usage.get("prompt_tokens"),
        units_out=usage.get("completion_tokens"),
    )


class Relay:
    """One answer on its way through.

    An earlier attempt's chunks are not sent again: the server starts anew, and what it repeats is left out.
    """

    def __init__(
        self,
        job: EngineJob,
        prompt: Prompt,
        tokenizer: ChatTokenizer,
        *,
        settings: EngineSettings,
        send: Callable[[Chunk], None],
        now_ms: Callable[[], int],
    ) -> None:
        kept = Answer(chunk.body for chunk in job.resume)
        self._job, self._prompt, self._tokenizer = job, prompt, tokenizer
        self._settings, self._send, self._now_ms = settings, send, now_ms
        self._sent, self._index = kept.text, len(job.resume)
        self._text, self._finish, self._named = "", _KEPT_FINISHES.get(kept.finish or ""), ""
        self._pieces, self._sent_at_ms = 0, 0
        self._most_in, self._most_out = len(prompt.tokens), prompt.max_tokens

    @property
    def ended(self) -> bool:
        """Whether the answer has its finish."""
        return self._finish is not None

    def take(self, delta: Delta | None) -> None:
        """Adds what came; None when the stream ended without saying so.

        Raises:
            EngineFailed: it broke off, or ended in a way that is no answer.
            ResumeMismatch: it is another text than the one delivered already.
        """
        if delta is None:
            raise EngineFailed("the server's stream broke off")
        self._named = delta.finish or self._named
        # Some servers count along; the last word holds.
        self._most_in = self._most_in if delta.units_in is None else delta.units_in
        self._most_out = self._most_out if delta.units_out is None else delta.units_out
        self._text += delta.text
        self._pieces += bool(delta.text)
        if delta.done:
            self._end(_FINISHES.get(self._named))
        elif self._now_ms() >= self._job.stop_at_ms:
            self.stop()
        else:
            self._forward()

    def stop(self) -> None:
        """The time is up. Raises `EngineFailed` when there is nothing to bill."""
        if not (self._sent or self._text):
            raise EngineFailed("the server sent nothing in time")
        self._end("deadline")

    def cancel(self) -> None:
        """The buyer wants no more; what came so far is sent and billed."""
        self._end("cancelled")

    def outcome(self) -> Outcome:
        """Units of what was delivered, tokens of the text and one for its end; at most the server's count."""
        end = 1 if self._finish == "stop" else 0
        prompt, written = self._prompt, self._tokenizer.count(self._sent) + end
        if self._finish == "cancelled" and not self._sent:
            return Outcome(finish="cancelled", units_in=0, units_out=0, reading=_NOTHING_READ)
        units_in = max(0, min(len(prompt.tokens), self._most_in))
        units_out = max(0, min(written, prompt.max_tokens, self._most_out))
        finish = self._finish or "deadline"
        return Outcome(
            finish=finish,
            units_in=units_in,
            units_out=units_out,
            reading=_NOTHING_READ,
            max_tokens=prompt.max_tokens,
        )

    def _end(self, finish: Finish | None) -> None:
        if finish is None:
            raise EngineFailed(f"the server ended with {self._named[:32] or 'no reason'}")
        self._forward(last=True)
        if finish not in _CUT and self._text != self._sent:
            raise ResumeMismatch(self._job.id, "the server wrote less than was delivered before")
        self._put(finish_chunk(finish))
        self._finish = finish

    def _forward(self, *, last: bool = False) -> None:
        """Sends what is new once it is a chunk's worth; the first piece at once."""
        if not (self._text.startswith(self._sent) or self._sent.startswith(self._text)):
            raise ResumeMismatch(self._job.id, "the server wrote another text than before")
        fresh = self._text[len(self._sent) :]
        full = self._pieces >= self._settings.chunk_tokens
        late = self._now_ms() - self._sent_at_ms >= self._settings.chunk_ms
        if fresh and (last or full or late or not self._index):
            self._sent = self._text
            self._pieces, self._sent_at_ms = 0, self._now_ms()
            self._put(text_chunk(fresh))

    def _put(self, body: bytes) -> None:
        self._send(Chunk(index=self._index, body=body))
        self._index += 1
