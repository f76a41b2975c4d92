"""Answers that are stopped: with what they have, at the next step."""

from __future__ import annotations

import threading

from marketplace.protocol.payloads import Answer
from tests.worker.inference.conftest import Start, chat, job
from tests.worker.inference.test_generate import prompt_tokens
from worker.inference.engine import Chunk, Outcome, Running
from worker.models import ModelDir


def test_stopped_answer_ends_at_the_next_step_with_what_it_has(chat_model: ModelDir, start: Start) -> None:
    engine = start(chat_model, chunk_tokens=1)
    events: list[Chunk | Outcome | Exception] = []
    ended = threading.Event()
    seen = threading.Event()

    def hear(event: Chunk | Outcome | Exception) -> None:
        # On the engine's thread: what is asked here is found by the very next step.
        events.append(event)
        if isinstance(event, Chunk):
            assert seen.wait(20)
            running[0].stop()
        else:
            ended.set()

    running: list[Running] = []
    running.append(engine.submit(job(chat(chat_model, "Hi", max_tokens=200)), hear))
    seen.set()
    assert ended.wait(20)
    *chunks, outcome = events
    assert isinstance(outcome, Outcome)
    answer = Answer(chunk.body for chunk in chunks if isinstance(chunk, Chunk))
    assert (outcome.finish, answer.finish) == ("cancelled", "cancelled")
    tokens = [token for chunk in chunks if isinstance(chunk, Chunk) for token in chunk.token_ids]
    assert 0 < outcome.units_out == len(tokens) < 10
    assert outcome.units_in == len(prompt_tokens("Hi"))


def test_answer_stopped_before_it_began_reads_nothing(chat_model: ModelDir, start: Start) -> None:
    engine = start(chat_model, slots=1)
    first, second = threading.Event(), threading.Event()
    outcomes: list[Outcome] = []

    def hear_first(event: Chunk | Outcome | Exception) -> None:
        if isinstance(event, Outcome):
            first.set()
        elif not second.is_set():
            waiting.stop()

    def hear_second(event: Chunk | Outcome | Exception) -> None:
        if isinstance(event, Outcome):
            outcomes.append(event)
            second.set()

    blocker = threading.Event()
    engine.submit(job(chat(chat_model, "Hi", max_tokens=2)), lambda _event: blocker.wait(20))
    engine.submit(job(chat(chat_model, "Hi", max_tokens=40)), hear_first)
    waiting = engine.submit(job(chat(chat_model, "Hi", max_tokens=40)), hear_second)
    blocker.set()
    assert second.wait(20)
    assert (outcomes[0].finish, outcomes[0].units_in, outcomes[0].units_out) == ("cancelled", 0, 0)
    assert first.wait(20)
