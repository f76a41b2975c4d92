from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from marketplace.protocol.errors import ErrorCode
from marketplace.protocol.payloads import ChatMessage, ChatPayload
from tests.worker.inference.conftest import (
    FAR,
    Start,
    ask,
    chat,
    embed,
    job,
    llama_config,
    save_chat_model,
    together,
)
from worker.inference.engine import Chunk
from worker.inference.errors import (
    EmptyInput,
    EngineFailed,
    ModelNotServed,
    ModelRefused,
    OutOfContext,
    ResumeMismatch,
    TemplateRefused,
    WrongTask,
)
from worker.models import ModelDir

TEXTS = ["Hi", "Say something longer, please, so that it takes several blocks.", "žluťoučký kůň", "1 2 3"]


def reference(model: ModelDir, text: str, count: int) -> list[int]:
    """Greedy answer of transformers' own `generate`."""
    network = AutoModelForCausalLM.from_pretrained(model.path)
    prompt = prompt_tokens(text)
    out = network.generate(
        torch.tensor([prompt]), max_new_tokens=count, do_sample=False, eos_token_id=257, pad_token_id=257
    )
    return out[0, len(prompt) :].tolist()


def prompt_tokens(text: str) -> list[int]:
    from tests.worker.inference.conftest import byte_tokenizer

    tokenizer = byte_tokenizer()
    turns = [{"role": "user", "content": text}]
    return tokenizer.encode(
        tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True),
        add_special_tokens=False,
    )


SHARED = {"vocab_size": 258, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.3}
ENDS = {"bos_token_id": 256, "eos_token_id": 257, "pad_token_id": 257}
ARCHITECTURES = {
    "llama": lambda: LlamaForCausalLM(llama_config()),
    "mistral, window of 8": lambda: MistralForCausalLM(
        MistralConfig(**SHARED, **HEADS, **ENDS, sliding_window=8, max_position_embeddings=256)
    ),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SHARED, **HEADS, **ENDS, max_position_embeddings=256)),
    "qwen3": lambda: Qwen3ForCausalLM(
        Qwen3Config(**SHARED, **HEADS, **ENDS, head_dim=16, max_position_embeddings=256)
    ),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(
            vocab_size=258, n_positions=256, n_embd=64, n_layer=2, n_head=4, initializer_range=0.3, **ENDS
        )
    ),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_greedy_answers_equal_generate_whatever_shares_the_batch(
    name: str, tmp_path: Path, start: Start
) -> None:
    torch.manual_seed(3)
    model = save_chat_model(ARCHITECTURES[name](), tmp_path / "model")
    engine = start(model, prompt_block=16, slots=3)
    answers = together(*(lambda text=text: ask(engine, chat(model, text, max_tokens=20)) for text in TEXTS))
    for text, answer in zip(TEXTS, answers, strict=True):
        assert answer.tokens == reference(model, text, 20), text
        assert answer.outcome.units_in == len(prompt_tokens(text)) == engine.units_in(chat(model, text))
        assert answer.outcome.units_out == len(answer.tokens)


@pytest.mark.parametrize("tile_rows", [0, 16])
def test_sampled_answer_does_not_depend_on_the_batch(
    chat_model: ModelDir, start: Start, tile_rows: int
) -> None:
    engine = start(chat_model, tile_rows=tile_rows)
    payload = chat(chat_model, "Hello", max_tokens=24, temperature_milli=900, top_p_milli=950)
    alone = ask(engine, payload, seed=11)
    crowd = [
        lambda i=i: ask(engine, chat(chat_model, "x" * i, max_tokens=20, temperature_milli=1000), seed=i)
        for i in range(1, 8)
    ]
    assert together(*crowd, lambda: ask(engine, payload, seed=11))[-1].tokens == alone.tokens
    assert ask(engine, payload, seed=12).tokens != alone.tokens


def test_resumed_answer_joins_exactly_wherever_it_was_cut(chat_model: ModelDir, start: Start) -> None:
    engine = start(chat_model, prompt_block=16, chunk_tokens=3)
    payload = chat(chat_model, "Resume me", max_tokens=40, temperature_milli=1200)
    seed = next(seed for seed in range(50) if ask(engine, payload, seed=seed).finish == "length")
    whole = ask(engine, payload, seed=seed)
    assert len(whole.chunks) > 5
    for kept in range(len(whole.chunks) + 1):
        again = ask(engine, payload, seed=seed, resume=tuple(whole.chunks[:kept]))
        assert (again.text, again.finish, again.tokens) == (whole.text, whole.finish, whole.tokens)
        assert again.outcome.units_in == whole.outcome.units_in
        assert again.outcome.units_out == whole.outcome.units_out


def test_resuming_a_finished_answer_sends_nothing(chat_model: ModelDir, start: Start) -> None:
    engine = start(chat_model)
    whole = ask(engine, chat(chat_model, "Hi"))
    sent: list[Chunk] = []
    outcome = engine.run(job(chat(chat_model, "Hi"), resume=tuple(whole.chunks)), sent.append)
    assert sent == []
    assert (outcome.finish, outcome.units_out) == (whole.outcome.finish, whole.outcome.units_out)


def test_chunks_of_another_job_stop_only_the_job_that_brought_them(
    chat_model: ModelDir, start: Start
) -> None:
    engine = start(chat_model)
    foreign = Chunk(index=0, body=b'{"text":"no"}', token_ids=(1, 2))
    with pytest.raises(ResumeMismatch):
        ask(engine, chat(chat_model, "Hi"), resume=(foreign,))
    assert ask(engine, chat(chat_model, "Hi")).finish


def test_answer_ends_before_its_deadline(chat_model: ModelDir, start: Start) -> None:
    clock = {"ms": 0}

    def now_ms() -> int:
        clock["ms"] += 1
        return clock["ms"]

    engine = start(chat_model, now_ms=now_ms, chunk_tokens=1)
    answer = ask(engine, chat(chat_model, "Hi", max_tokens=200), stop_at_ms=150)
    assert answer.finish == answer.outcome.finish == "deadline"
    assert 0 < answer.outcome.units_out < 200
    assert answer.tokens == reference(chat_model, "Hi", answer.outcome.units_out)


def test_job_already_out_of_time_is_not_computed_and_not_charged(chat_model: ModelDir, start: Start) -> None:
    engine = start(chat_model, now_ms=lambda: 1000)
    answer = ask(engine, chat(chat_model, "Hi"), stop_at_ms=999)
    assert [chunk.body for chunk in answer.chunks] == [b'{"finish":"deadline"}']
    outcome = answer.outcome
    assert (outcome.units_in, outcome.units_out, outcome.reading.device_microseconds) == (0, 0, 0)


def test_deadline_reaches_jobs_that_wait_for_a_slot(chat_model: ModelDir, start: Start) -> None:
    clock = {"ms": 0}
    engine = start(chat_model, now_ms=lambda: clock["ms"], slots=1, chunk_tokens=1)
    running, waiting = threading.Event(), {}

    def pass_time(_: Chunk) -> None:
        if not running.is_set():
            running.set()
            thread.start()
        clock["ms"] += 10

    def wait() -> None:
        waiting["answer"] = ask(engine, chat(chat_model, "b"), stop_at_ms=20)

    thread = threading.Thread(target=wait)
    engine.run(job(chat(chat_model, "a", max_tokens=150)), pass_time)
    thread.join(30)
    assert waiting["answer"].finish == "deadline"


def test_stop_string_ends_the_answer_before_it(chat_model: ModelDir, start: Start) -> None:
    engine = start(chat_model)
    whole = ask(engine, chat(chat_model, "1 2 3", max_tokens=30))
    stop = whole.text[10:12]
    cut = ask(engine, chat(chat_model, "1 2 3", max_tokens=30, stop=(stop,)))
    assert cut.finish == "stop"
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert cut.outcome.units_out < whole.outcome.units_out


def test_first_text_is_sent_at_once_and_the_rest_in_pieces(chat_model: ModelDir, start: Start) -> None:
    engine = start(chat_model, chunk_tokens=8)
    answer = ask(engine, chat(chat_model, "Pieces", max_tokens=64, temperature_milli=1500))
    assert len(answer.chunks[0].token_ids) < 8
    assert all(len(chunk.token_ids) >= 8 for chunk in answer.chunks[1:-2])


def test_emit_that_raises_stops_just_that_job(chat_model: ModelDir, start: Start) -> None:
    engine = start(chat_model, slots=1, chunk_tokens=1)

    class LeaseLost(Exception):
        pass

    def lost(_: Chunk) -> None:
        raise LeaseLost

    results = together(
        lambda: engine.run(job(chat(chat_model, "a", max_tokens=200)), lost),
        lambda: ask(engine, chat(chat_model, "Hi", max_tokens=20)),
    )
    assert isinstance(results[0], LeaseLost)
    assert results[1].tokens == reference(chat_model, "Hi", 20)


def test_emit_that_blocks_holds_up_no_other_job(chat_model: ModelDir, start: Start) -> None:
    engine = start(chat_model)
    gate = threading.Event()

    def other() -> object:
        answer = ask(engine, chat(chat_model, "Hi"))
        gate.set()
        return answer

    results = together(lambda: engine.run(job(chat(chat_model, "a")), lambda _: gate.wait(30)), other)
    assert results[0].finish == "length"
    assert results[1].finish


def test_jobs_beyond_the_batch_bound_wait_their_turn(chat_model: ModelDir, start: Start) -> None:
    engine = start(chat_model, max_batch_tokens=100, prompt_block=8)
    calls = [lambda i=i: ask(engine, chat(chat_model, f"n{i}", max_tokens=15)) for i in range(6)]
    for i, answer in enumerate(together(*calls)):
        assert answer.tokens == reference(chat_model, f"n{i}", 15)


def test_max_tokens_is_clipped_to_the_context(chat_model: ModelDir, start: Start) -> None:
    engine = start(chat_model)
    text = "y" * 180
    answer = ask(engine, chat(chat_model, text, max_tokens=30_000, temperature_milli=2000))
    assert answer.outcome.units_out <= 256 - len(prompt_tokens(text))
    if answer.finish == "length":
        assert answer.outcome.units_in + answer.outcome.units_out == 256


def test_reading_names_method_and_is_never_zero_for_work_done(chat_model: ModelDir, start: Start) -> None:
    reading = ask(start(chat_model), chat(chat_model, "Hi")).outcome.reading
    assert reading.device_microseconds > 0
    assert reading.energy_millijoules > 0
    assert reading.energy_method == "model"


def test_profile_names_what_decides_the_bits(chat_model: ModelDir, start: Start) -> None:
    profile = start(chat_model, tile_rows=4, prompt_block=32).profile
    assert (profile.engine, profile.tile_rows, profile.prompt_block) == ("wattline-chat-3", 4, 32)
    assert (profile.sampler, profile.trace) == ("gumbel1", "blocks32/sign16/every4")
    assert (profile.torch, profile.dtype) == (torch.__version__, "float32")
    assert profile.device.startswith("cpu/")
    assert profile.template == chat_model.manifest.chat_template


def test_prompt_beyond_the_context_is_refused(chat_model: ModelDir, start: Start) -> None:
    with pytest.raises(OutOfContext) as caught:
        ask(start(chat_model), chat(chat_model, "z" * 300))
    assert caught.value.code is ErrorCode.INPUT_TOO_LONG
    assert caught.value.spec.hint


def test_conversation_without_text_is_refused(chat_model: ModelDir, start: Start) -> None:
    with pytest.raises(EmptyInput):
        ask(start(chat_model), chat(chat_model, " \n"))


def test_payload_of_another_task_is_refused(chat_model: ModelDir, start: Start) -> None:
    engine = start(chat_model)
    with pytest.raises(WrongTask) as caught:
        engine.units_in(embed(chat_model, "text"))
    assert caught.value.code is ErrorCode.UNSUPPORTED
    with pytest.raises(WrongTask):
        ask(engine, embed(chat_model, "text"))


def test_payload_for_another_model_is_refused(
    chat_model: ModelDir, embed_model: ModelDir, start: Start
) -> None:
    with pytest.raises(ModelNotServed) as caught:
        ask(start(chat_model), chat(embed_model, "Hi"))
    assert caught.value.code is ErrorCode.UNKNOWN_MODEL


def test_turns_the_template_refuses_are_refused(chat_model: ModelDir, start: Start) -> None:
    turns = (ChatMessage(role="system", content="be brief"), ChatMessage(role="user", content="Hi"))
    payload = ChatPayload(model="0x" + chat_model.model_id.hex(), messages=turns, max_tokens=3)
    with pytest.raises(TemplateRefused, match="no system turns"):
        ask(start(chat_model), payload)


def test_engine_that_breaks_down_fails_every_caller(
    chat_model: ModelDir, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = start(chat_model, slots=2)

    def break_down(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("worker.inference.ragged.RaggedModel.decode", break_down)
    results = together(*(lambda i=i: ask(engine, chat(chat_model, f"{i}")) for i in range(5)))
    assert all(isinstance(result, EngineFailed) for result in results)
    assert "out of memory" in str(results[0])
    assert results[0].code is ErrorCode.NODE_FAILED
    assert not engine.alive
    with pytest.raises(EngineFailed):
        ask(engine, chat(chat_model, "again"))


def test_closing_fails_jobs_that_run(chat_model: ModelDir, start: Start) -> None:
    engine = start(chat_model, chunk_tokens=1)
    closed = threading.Event()

    def close_once(_: Chunk) -> None:
        if not closed.is_set():
            closed.set()
            engine.close()

    with pytest.raises(EngineFailed, match="closed"):
        engine.run(job(chat(chat_model, "a", max_tokens=220, temperature_milli=2000)), close_once)
    engine.close()


def test_engine_that_is_not_loaded_refuses_jobs(chat_model: ModelDir) -> None:
    from worker.inference.engine import EngineSettings
    from worker.inference.generate import ChatEngine
    from worker.metering import DeclaredSource

    engine = ChatEngine(chat_model, EngineSettings(), energy=DeclaredSource(), now_ms=lambda: FAR)
    assert not engine.alive
    with pytest.raises(EngineFailed, match="not loaded"):
        ask(engine, chat(chat_model, "Hi"))
    engine.close()


def test_model_without_chat_template_is_not_served(tmp_path: Path, start: Start) -> None:
    model = save_chat_model(LlamaForCausalLM(llama_config()), tmp_path / "base", template=None)
    with pytest.raises(EngineFailed, match="no chat template"):
        start(model)


def test_model_without_tokenizer_is_not_served(tmp_path: Path, start: Start) -> None:
    from worker.models import from_directory

    LlamaForCausalLM(llama_config()).save_pretrained(tmp_path / "bare")
    with pytest.raises(EngineFailed, match="no tokenizer"):
        start(from_directory(tmp_path / "bare"))


def test_model_that_keeps_state_outside_attention_is_refused_when_loading(
    tmp_path: Path, start: Start
) -> None:
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(
        vocab_size=258, hidden_size=32, num_hidden_layers=2, max_position_embeddings=64, **ENDS
    )
    model = save_chat_model(MambaForCausalLM(config), tmp_path / "mamba")
    with pytest.raises(ModelRefused, match="serve a decoder"):
        start(model)
