"""Log-probabilities of an answer's tokens, against transformers' own scores."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.worker.inference.conftest import Start, ask, chat
from tests.worker.inference.test_generate import TEXTS, prompt_tokens
from worker.models import ModelDir


@pytest.mark.parametrize("temperature_milli", [0, 900])
def test_logprobs_are_those_of_the_model(chat_model: ModelDir, start: Start, temperature_milli: int) -> None:
    engine = start(chat_model, chunk_tokens=3)
    asked = ask(engine, chat(chat_model, TEXTS[0], temperature_milli=temperature_milli, logprobs=3))
    prompt = prompt_tokens(TEXTS[0])
    network = AutoModelForCausalLM.from_pretrained(chat_model.path)
    with torch.inference_mode():
        scores = network(torch.tensor([prompt + asked.tokens])).logits[0, len(prompt) - 1 : -1]
    logs = torch.log_softmax(scores.double(), -1)
    assert [row["id"] for row in asked.logprobs] == [token for token in asked.tokens if token != 257]
    assert len(asked.logprobs) > 3
    for row, own in zip(asked.logprobs, logs, strict=False):
        best = own.topk(3)
        assert row["logprob_micro"] == pytest.approx(1e6 * own[row["id"]].item(), abs=20)
        assert [other["id"] for other in row["top"]] == best.indices.tolist()
        assert [other["logprob_micro"] for other in row["top"]] == pytest.approx(
            (1e6 * best.values).tolist(), abs=20
        )
    without = ask(engine, chat(chat_model, TEXTS[0], temperature_milli=temperature_milli))
    assert (without.tokens, without.text) == (asked.tokens, asked.text)
    assert not without.logprobs


def test_logprobs_go_on_where_an_earlier_run_stopped(chat_model: ModelDir, start: Start) -> None:
    engine = start(chat_model, chunk_tokens=2)
    payload = chat(chat_model, TEXTS[2], logprobs=1)
    whole = ask(engine, payload)
    for kept in range(len(whole.chunks)):
        resumed = ask(engine, payload, resume=tuple(whole.chunks[:kept]))
        assert [chunk.body for chunk in resumed.chunks] == [chunk.body for chunk in whole.chunks]
