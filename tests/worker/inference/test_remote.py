"""The adapter to an OpenAI-compatible server, against a real HTTP server in this process."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Iterator
from typing import Any

import pytest

from marketplace.protocol.payloads import Answer
from tests.worker.inference.conftest import FAR, Asked, ask, chat, embed, job, together
from tests.worker.inference.openai_server import WORDS, Server, event, whole
from worker.inference.engine import Chunk, EngineSettings, Upstream
from worker.inference.errors import (
    EngineFailed,
    ModelNotServed,
    NoLogprobs,
    OutOfContext,
    ResumeMismatch,
    UpstreamRefused,
    WrongTask,
)
from worker.inference.pool import EnginePool, engine_builder
from worker.inference.remote import RemoteEngine
from worker.metering import DeclaredSource
from worker.models import ModelDir, offered_as

KEY = "server-key"


class Clock:
    def __init__(self) -> None:
        self.ms = 0

    def __call__(self) -> int:
        return self.ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def engine(server: Server, chat_model: ModelDir, clock: Clock) -> Iterator[RemoteEngine]:
    settings = EngineSettings(chunk_ms=FAR, chunk_tokens=2)
    engine = RemoteEngine(chat_model, settings, Upstream(url=server.url, key=KEY), now_ms=clock)
    engine.load()
    yield engine
    engine.close()


def hurried(server: Server, model: ModelDir, stall_ms: int) -> RemoteEngine:
    upstream = Upstream(url=server.url, stall_ms=stall_ms)
    engine = RemoteEngine(model, EngineSettings(), upstream, now_ms=lambda: time.time_ns() // 1_000_000)
    engine.load()
    return engine


def say(engine: RemoteEngine, model: ModelDir, **fields: Any) -> Asked:
    kept = {name: fields.pop(name) for name in ("seed", "stop_at_ms", "resume") if name in fields}
    return ask(engine, chat(model, "Hi", **{"max_tokens": 40, **fields}), **kept)


def test_text_arrives_in_chunks_as_it_is_streamed(engine: RemoteEngine, chat_model: ModelDir) -> None:
    answer = say(engine, chat_model)
    assert (answer.text, answer.finish) == ("The sky is blue.", "stop")
    bodies = [json.loads(chunk.body) for chunk in answer.chunks]
    # The first piece at once, then as many as make a chunk.
    assert bodies == [{"text": "The "}, {"text": "sky is "}, {"text": "blue."}, {"finish": "stop"}]
    assert answer.outcome.finish == "stop"


def test_call_says_what_was_ordered(engine: RemoteEngine, server: Server, chat_model: ModelDir) -> None:
    options = {"temperature_milli": 700, "top_p_milli": 900, "stop": ("END",), "max_tokens": 17}
    say(engine, chat_model, seed=(1 << 64) - 1, **options)
    asked = server.requests[0]
    assert asked["messages"] == [{"role": "user", "content": "Hi"}]
    assert (asked["model"], asked["max_tokens"], asked["stop"]) == ("big", 17, ["END"])
    assert (asked["temperature"], asked["top_p"], asked["seed"]) == (0.7, 0.9, (1 << 63) - 1)
    assert (asked["stream"], asked["stream_options"]) == (True, {"include_usage": True})
    assert server.keys == [f"Bearer {KEY}"]


def test_the_systems_certificates_are_not_read_for_every_call(
    engine: RemoteEngine, chat_model: ModelDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[bool] = []

    def counted(**_: object) -> ssl.SSLContext:
        read.append(True)
        return ssl.create_default_context()

    monkeypatch.setattr("httpcore2.default_ssl_context", counted)
    assert say(engine, chat_model).finish == "stop"
    assert read == []


def test_units_are_the_nodes_own_count(engine: RemoteEngine, chat_model: ModelDir) -> None:
    outcome = say(engine, chat_model).outcome
    # A token a byte, and one for the end.
    assert outcome.units_in == engine.units_in(chat(chat_model, "Hi"))
    assert outcome.units_out == len("The sky is blue.") + 1


@pytest.mark.parametrize(
    ("counted", "expected"), [((3, 5), (3, 5)), ((10**6, 10**6), None), ((-5, -5), (0, 0))]
)
def test_server_that_counts_fewer_units_is_believed_and_never_one_that_counts_more(
    engine: RemoteEngine,
    server: Server,
    chat_model: ModelDir,
    counted: tuple[int, int],
    expected: tuple[int, int] | None,
) -> None:
    own = (engine.units_in(chat(chat_model, "Hi")), len("The sky is blue.") + 1)
    server.script = whole(*WORDS, counted=counted)
    outcome = say(engine, chat_model).outcome
    assert (outcome.units_in, outcome.units_out) == (expected or own)


def test_last_of_several_counts_holds(engine: RemoteEngine, server: Server, chat_model: ModelDir) -> None:
    counting = [
        event(word, usage={"prompt_tokens": 9, "completion_tokens": i + 1}) for i, word in enumerate(WORDS)
    ]
    server.script = [*counting, event(finish="stop"), "[DONE]"]
    outcome = say(engine, chat_model).outcome
    assert (outcome.units_in, outcome.units_out) == (9, len(WORDS))


def test_answer_at_its_longest_ends_with_length(
    engine: RemoteEngine, server: Server, chat_model: ModelDir
) -> None:
    server.script = whole("abc", finish="length")
    answer = say(engine, chat_model, max_tokens=3)
    assert (answer.finish, answer.outcome.units_out) == ("length", 3)


def test_profile_says_who_answered_and_that_there_is_no_trace(engine: RemoteEngine) -> None:
    profile = engine.profile
    assert profile.engine == "external-openai-1/vllm/no-trace"
    assert (profile.torch, profile.dtype, profile.device) == ("none", "unknown", "unknown")
    assert (profile.tile_rows, profile.sampler, profile.trace) == (0, "", "")


def test_neither_time_nor_energy_is_claimed(engine: RemoteEngine, chat_model: ModelDir) -> None:
    reading = say(engine, chat_model).outcome.reading
    assert (reading.device_microseconds, reading.energy_millijoules, reading.energy_method) == (0, 0, "none")


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ([event("The "), json.dumps({"error": {"message": "out of memory"}})], "with an error"),
        ([event("The ")], "broke off"),
        ([event("The "), event(finish="stop")], "broke off"),
        ([event("The "), "[DONE]"], "no reason"),
        ([event("The "), event(finish="content_filter"), "[DONE]"], "content_filter"),
        ([event("The "), "{not json"], "cannot be read"),
        ([event("The "), '{"choices": 5}'], "cannot be read"),
        ([event("The "), "[]"], "cannot be read"),
        ([], "broke off"),
    ],
)
def test_broken_stream_fails_the_engine_and_is_never_an_answer(
    engine: RemoteEngine, server: Server, chat_model: ModelDir, script: list[str | None], reason: str
) -> None:
    server.script = script
    chunks: list[Chunk] = []
    with pytest.raises(EngineFailed, match=reason):
        engine.run(job(chat(chat_model, "Hi")), chunks.append)
    assert Answer(chunk.body for chunk in chunks).finish is None
    server.script = whole(*WORDS)
    assert say(engine, chat_model).finish == "stop"


def test_connection_cut_in_the_middle_fails_the_engine(
    engine: RemoteEngine, server: Server, chat_model: ModelDir
) -> None:
    server.script, server.breaks = [event("The "), event("sky ")], True
    with pytest.raises(EngineFailed):
        say(engine, chat_model)


@pytest.mark.parametrize("status", [401, 404, 429, 500, 503])
def test_status_that_may_pass_fails_the_engine(
    engine: RemoteEngine, server: Server, chat_model: ModelDir, status: int
) -> None:
    server.status = status
    with pytest.raises(EngineFailed, match=str(status)):
        say(engine, chat_model)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_status_that_blames_the_request_ends_the_job(
    engine: RemoteEngine, server: Server, chat_model: ModelDir, status: int
) -> None:
    server.status = status
    with pytest.raises(UpstreamRefused, match=str(status)):
        say(engine, chat_model)


def test_server_that_is_down_fails_the_load(chat_model: ModelDir) -> None:
    engine = RemoteEngine(
        chat_model, EngineSettings(), Upstream(url="http://127.0.0.1:9/v1"), now_ms=lambda: 0
    )
    with pytest.raises(EngineFailed, match="does not offer"):
        engine.load()
    assert not engine.alive
    with pytest.raises(EngineFailed):
        engine.run(job(chat(chat_model, "Hi")), lambda _: None)


@pytest.mark.parametrize("models", [[], [{"id": "other"}], [{"name": "big"}]])
def test_server_without_the_model_fails_the_load(
    server: Server, chat_model: ModelDir, models: list[dict[str, Any]]
) -> None:
    server.models = models
    upstream = Upstream(url=server.url, model="big")
    with pytest.raises(EngineFailed, match="does not offer big"):
        RemoteEngine(chat_model, EngineSettings(), upstream, now_ms=lambda: 0).load()


def test_context_is_the_shorter_of_the_servers_and_the_models(
    engine: RemoteEngine, chat_model: ModelDir
) -> None:
    fits = engine.units_in(chat(chat_model, "x" * 100))
    with pytest.raises(OutOfContext, match="at most 199"):
        engine.units_in(chat(chat_model, "x" * (100 + 200 - fits)))


def test_emit_that_raises_hangs_up_on_the_server(
    engine: RemoteEngine, server: Server, chat_model: ModelDir
) -> None:
    server.script = [event("The "), None]

    def lost(_: Chunk) -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        engine.run(job(chat(chat_model, "Hi")), lost)
    assert server.gone.wait(30), "the server works on"


def test_deadline_ends_the_answer_with_what_was_delivered(
    engine: RemoteEngine, server: Server, chat_model: ModelDir, clock: Clock
) -> None:
    server.script = [event("The "), event("sky "), event("is "), None]
    seen: list[Chunk] = []

    def late(chunk: Chunk) -> None:
        seen.append(chunk)
        clock.ms = 5_000

    outcome = engine.run(job(chat(chat_model, "Hi"), stop_at_ms=5_000), late)
    answer = Answer(chunk.body for chunk in seen)
    assert (outcome.finish, answer.finish) == ("deadline", "deadline")
    assert 0 < outcome.units_out == len(answer.text)
    assert "The sky is ".startswith(answer.text)
    assert server.gone.wait(30)


def test_deadline_is_kept_while_the_server_is_silent(server: Server, chat_model: ModelDir) -> None:
    engine = hurried(server, chat_model, 60_000)
    server.script = [event("The "), None]
    answer = say(engine, chat_model, stop_at_ms=time.time_ns() // 1_000_000 + 1_500)
    assert (answer.finish, answer.text, answer.outcome.units_out) == ("deadline", "The ", 4)
    engine.close()


def test_nothing_by_the_deadline_is_a_failure_and_not_a_bill(server: Server, chat_model: ModelDir) -> None:
    engine = hurried(server, chat_model, 60_000)
    server.script = [None]
    with pytest.raises(EngineFailed, match="nothing in time"):
        say(engine, chat_model, stop_at_ms=time.time_ns() // 1_000_000 + 300)
    engine.close()


def test_server_that_falls_silent_has_failed(server: Server, chat_model: ModelDir) -> None:
    engine = hurried(server, chat_model, 300)
    server.script = [event("The "), None]
    with pytest.raises(EngineFailed, match="silent for 300 ms"):
        say(engine, chat_model, stop_at_ms=time.time_ns() // 1_000_000 + 600_000)
    engine.close()


def test_retried_job_goes_on_behind_what_was_delivered(engine: RemoteEngine, chat_model: ModelDir) -> None:
    first = say(engine, chat_model)
    for kept in range(len(first.chunks) + 1):
        again = say(engine, chat_model, resume=tuple(first.chunks[:kept]))
        assert (again.text, again.finish) == (first.text, "stop")
        assert again.outcome.units_out == first.outcome.units_out


def test_job_that_had_its_finish_is_not_asked_again(
    engine: RemoteEngine, server: Server, chat_model: ModelDir
) -> None:
    first = say(engine, chat_model)
    server.requests.clear()
    say(engine, chat_model, resume=tuple(first.chunks))
    assert server.requests == []


@pytest.mark.parametrize("words", [("Another ", "text"), ("The ",), ("The ", "sky was ")])
def test_server_that_writes_another_text_cannot_go_on(
    engine: RemoteEngine, server: Server, chat_model: ModelDir, words: tuple[str, ...]
) -> None:
    first = say(engine, chat_model)
    server.script = whole(*words)
    with pytest.raises(ResumeMismatch):
        say(engine, chat_model, resume=tuple(first.chunks[:3]))


def test_closing_fails_the_jobs_that_run(engine: RemoteEngine, server: Server, chat_model: ModelDir) -> None:
    server.script = [event("The "), None]

    def close_then() -> Any:
        return engine.run(job(chat(chat_model, "Hi")), lambda _: engine.close())

    results = together(close_then)
    assert isinstance(results[0], EngineFailed)
    assert not engine.alive
    engine.close()


def test_many_jobs_run_at_once(engine: RemoteEngine, chat_model: ModelDir) -> None:
    answers = together(*(lambda: say(engine, chat_model) for _ in range(12)))
    assert [answer.text for answer in answers] == ["The sky is blue."] * 12


def test_payloads_it_cannot_run_are_refused(
    engine: RemoteEngine, chat_model: ModelDir, embed_model: ModelDir
) -> None:
    with pytest.raises(WrongTask):
        ask(engine, embed(chat_model, "a"))
    with pytest.raises(ModelNotServed):
        ask(engine, chat(embed_model, "a"))
    with pytest.raises(NoLogprobs):
        ask(engine, chat(chat_model, "a", logprobs=0))
    with pytest.raises(NoLogprobs):
        engine.units_in(chat(chat_model, "a", logprobs=0))


def test_pool_hands_a_model_to_its_server_and_no_other(
    server: Server, chat_model: ModelDir, embed_model: ModelDir
) -> None:
    upstreams = {chat_model.model_id: Upstream(url=server.url)}
    build = engine_builder(EngineSettings(), now_ms=lambda: 0, energy=DeclaredSource(), upstreams=upstreams)
    pool = EnginePool([chat_model, embed_model], build)
    with pool.using(chat_model.model_id) as chat, pool.using(embed_model.model_id) as embed:
        assert isinstance(chat, RemoteEngine)
        assert not isinstance(embed, RemoteEngine)
    pool.close()


def test_server_does_chat_alone(server: Server, chat_model: ModelDir) -> None:
    with pytest.raises(EngineFailed, match="only do chat"):
        RemoteEngine(
            offered_as(chat_model, "rerank"), EngineSettings(), Upstream(url=server.url), now_ms=lambda: 0
        )


def test_key_of_a_server_is_not_shown() -> None:
    assert KEY not in repr(Upstream(url="http://a/v1", key=KEY))
