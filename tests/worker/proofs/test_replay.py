"""An auditor's replay: honest work passes, each kind of cheating is named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from marketplace.protocol.annex import NO_TRACE, Profile
from marketplace.protocol.payloads import seed_of
from marketplace.protocol.trace import pack_tokens
from tests.worker.inference.conftest import Asked, Start, chat, job, llama_config, save_chat_model, together
from tests.worker.proofs.conftest import ORDER, claim_of, run, sampled
from worker.audit.desk import settings_for
from worker.inference.engine import Chunk, EngineSettings
from worker.inference.replayer import ModelReplayer
from worker.models import ModelDir
from worker.proofs.calibration import Calibration, Spread
from worker.proofs.replay import Claim, Computed, audit, audit_batch, audit_exactly
from worker.proofs.verdict import Code, Outcome, Tier, Verdict

SETTINGS = EngineSettings(prompt_block=16)


@pytest.fixture(scope="module")
def replayer(chat_model: ModelDir) -> ModelReplayer:
    return ModelReplayer(chat_model, SETTINGS)


@pytest.fixture
def claim(chat_model: ModelDir, start: Start) -> Claim:
    engine, payload = start(chat_model, prompt_block=16), sampled(chat_model)
    return claim_of(engine, payload, run(engine, payload))


def codes(verdict: Verdict) -> set[Code]:
    return {reason.code for reason in verdict.reasons}


def limits(replayer: ModelReplayer) -> Calibration:
    """Tight ones: in float32 honest margins are all but zero."""
    narrow = Spread(mean=1e-5, within=1e-4, between=1e-5, skew=0, highest=1e-3)
    return Calibration(
        model=replayer.model_id,
        profile=replayer.profile,
        margins=narrow,
        distances=narrow.model_copy(update={"mean": 3e-4}),
        token_margin=0.01,
        z=4.75,
        made={},
    )


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"temperature_milli": 0},
        {"top_p_milli": 700, "temperature_milli": 1500},
        {"stop": ("e",), "temperature_milli": 1500},
        {"max_tokens": 33},
        {"logprobs": 0},
        {"logprobs": 5, "temperature_milli": 1500},
        {"max_tokens": 1},
        {"max_tokens": 30_000},
    ],
)
def test_honest_work_is_accepted_in_both_tiers(
    chat_model: ModelDir, start: Start, replayer: ModelReplayer, fields: dict[str, Any]
) -> None:
    engine, payload = start(chat_model, prompt_block=16), sampled(chat_model, **fields)
    crowd = [lambda i=i: run(engine, sampled(chat_model, "z" * i), bytes([i]) * 32) for i in range(1, 6)]
    made = claim_of(engine, payload, together(*crowd, lambda: run(engine, payload))[-1])
    exact = audit(made, replayer, None)
    assert (exact.tier, exact.outcome, exact.reasons) == (Tier.EXACT, Outcome.ACCEPTED, ())
    tolerant = audit(made, replayer, limits(replayer), tier=Tier.TOLERANCE)
    assert (tolerant.outcome, tolerant.reasons) == (Outcome.ACCEPTED, ())
    assert tolerant.figures["token_match"] > 0.95


def test_jobs_audited_together_are_measured_as_alone(
    chat_model: ModelDir, start: Start, replayer: ModelReplayer
) -> None:
    engine = start(chat_model, prompt_block=16)
    payloads = [sampled(chat_model, "m" * i, seed=i) for i in range(1, 8)]
    claims = [claim_of(engine, payload, run(engine, payload)) for payload in payloads]
    both = audit_batch(claims, replayer, limits(replayer))
    assert all(verdict.outcome is Outcome.ACCEPTED for verdict, _ in both)
    for one, (_, measured) in zip(claims, both, strict=True):
        alone = audit_batch([one], replayer, None)[0][1]
        assert np.allclose(alone.margins, measured.margins, atol=1e-3)
        assert np.allclose(alone.distances, measured.distances, atol=1e-3)


def annexed(**changes: Any) -> Callable[[Claim], Claim]:
    return lambda claim: replace(claim, annex=claim.annex.model_copy(update=changes))


def swapped(claim: Claim) -> Claim:
    """One token in the middle replaced, in annex and opened blocks alike."""
    tokens = list(claim.token_ids)
    tokens[40] = (tokens[40] + 1) % 250
    return annexed(token_ids=pack_tokens(tokens))(claim)


LIES: dict[str, tuple[Callable[[Claim], Claim], Code]] = {
    "more input units": (annexed(units_in=99), Code.UNITS),
    "more output units": (annexed(units_out=99), Code.UNITS),
    "another text": (lambda claim: replace(claim, text=claim.text + "!"), Code.TEXT),
    "another seed": (annexed(seed="1"), Code.SAMPLING),
    "no sampling": (annexed(sampling=None), Code.SAMPLING),
    "no trace": (annexed(trace_root=NO_TRACE), Code.NO_TRACE),
    "stop without an end": (annexed(finish="stop"), Code.FINISH),
    "another end": (annexed(finish="done"), Code.FINISH),
    "a token swapped": (swapped, Code.TEXT),
    "a token of no vocabulary": (annexed(token_ids=pack_tokens([9_999])), Code.CHOICE),
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("tier", list(Tier))
def test_lie_is_named(claim: Claim, replayer: ModelReplayer, lie: str, tier: Tier) -> None:
    tell, code = LIES[lie]
    found = audit(tell(claim), replayer, limits(replayer), tier=tier)
    assert found.outcome is Outcome.REJECTED
    assert code in codes(found)


def _retold(claim: Claim, place: int, **changes: Any) -> Claim:
    told = list(claim.logprobs)
    told[place] = told[place].model_copy(update=changes)
    return replace(claim, logprobs=tuple(told))


LOGPROB_LIES: dict[str, Callable[[Claim], Claim]] = {
    "likelier than it was": lambda claim: _retold(
        claim, 7, logprob_micro=claim.logprobs[7].logprob_micro // 2
    ),
    "of another token": lambda claim: _retold(claim, 7, id=claim.logprobs[7].id ^ 1),
    "with fewer alternatives": lambda claim: _retold(claim, 7, top=claim.logprobs[7].top[:1]),
    "with other alternatives": lambda claim: _retold(claim, 7, top=claim.logprobs[7].top[::-1]),
    "of fewer tokens": lambda claim: replace(claim, logprobs=claim.logprobs[:-1]),
    "of more tokens": lambda claim: replace(claim, logprobs=(*claim.logprobs, claim.logprobs[0])),
    "where none were asked for": lambda claim: replace(
        claim, payload=claim.payload.model_copy(update={"logprobs": None})
    ),
}


@pytest.mark.parametrize("lie", LOGPROB_LIES)
def test_logprobs_that_are_not_the_models_are_named(
    chat_model: ModelDir, start: Start, replayer: ModelReplayer, lie: str
) -> None:
    engine, payload = start(chat_model, prompt_block=16), sampled(chat_model, logprobs=2)
    made = claim_of(engine, payload, run(engine, payload))
    found = audit(LOGPROB_LIES[lie](made), replayer, None)
    assert (found.outcome, codes(found)) == (Outcome.REJECTED, {Code.LOGPROBS})


def test_answer_cut_before_its_length_is_rejected(claim: Claim, replayer: ModelReplayer) -> None:
    tokens = claim.token_ids[:50]
    text, _ = replayer.text(tokens, claim.payload)
    short = annexed(token_ids=pack_tokens(tokens), units_out=50)(replace(claim, text=text, opened=()))
    assert codes(audit(short, replayer, limits(replayer))) == {Code.FINISH, Code.HIDDEN}


@pytest.mark.parametrize("change", ["other weights", "other seed", "other prompt", "greedy"])
def test_other_work_than_was_ordered_is_rejected_in_both_tiers(
    chat_model: ModelDir, start: Start, replayer: ModelReplayer, tmp_path: Any, change: str
) -> None:
    payload = sampled(chat_model)
    served, ran = chat_model, payload
    if change == "other weights":
        torch.manual_seed(8)
        served = save_chat_model(LlamaForCausalLM(llama_config()), tmp_path / "other")
        ran = sampled(served)
    elif change == "other seed":
        ran = sampled(chat_model, seed=4)
    elif change == "other prompt":
        ran = sampled(chat_model, "Prove is")
    else:
        ran = sampled(chat_model, temperature_milli=0)
    engine, honest = start(served, prompt_block=16), start(chat_model, prompt_block=16)
    asked = run(engine, ran)
    made = claim_of(honest, payload, asked)
    exact = audit_exactly(made, replayer)
    assert Code.CHOICE in codes(exact)
    tolerant = audit_batch([made], replayer, limits(replayer))[0][0]
    assert {Code.HIGHEST_MARGIN, Code.MEAN_MARGIN} <= codes(tolerant)
    if change in ("other weights", "other prompt"):
        assert Code.HIDDEN in codes(exact)
        assert Code.FINGERPRINT in codes(tolerant)


def test_weights_a_little_off_show_in_bytes_and_fingerprints(
    chat_model: ModelDir, start: Start, replayer: ModelReplayer, tmp_path: Any
) -> None:
    model = LlamaForCausalLM.from_pretrained(chat_model.path)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1 + 0.01 * torch.randn_like(weight))
    served = save_chat_model(model, tmp_path / "off")
    payload = sampled(served)
    made = claim_of(start(chat_model, prompt_block=16), payload, run(start(served, prompt_block=16), payload))
    assert Code.HIDDEN in codes(audit_exactly(made, replayer))
    assert Code.FINGERPRINT in codes(audit_batch([made], replayer, limits(replayer))[0][0])


def test_cheap_text_with_true_states_passes_fingerprints_and_fails_margins(
    chat_model: ModelDir, start: Start, replayer: ModelReplayer, tmp_path: Any
) -> None:
    """What fingerprints alone would let through: another model writes, the true one is evaluated."""
    from marketplace.protocol.hexes import to_hex
    from marketplace.protocol.trace import open_block, trace_root
    from worker.proofs.trace import TraceWriter

    torch.manual_seed(8)
    served = save_chat_model(LlamaForCausalLM(llama_config()), tmp_path / "cheap")
    payload = sampled(chat_model)
    asked = run(start(served, prompt_block=16), sampled(served))
    made = claim_of(start(chat_model, prompt_block=16), payload, asked)
    writer = TraceWriter(made.token_ids)
    writer.see(replayer.exact(replayer.prompt(payload), made.token_ids).hidden)
    blocks = writer.end()
    root = to_hex(trace_root(made.order_hash, blocks))
    opened = tuple(open_block(made.order_hash, blocks, number) for number in range(len(blocks)))
    forged = replace(annexed(trace_root=root)(made), opened=opened)
    assert codes(audit_exactly(forged, replayer)) == {Code.CHOICE}
    tolerant = audit_batch([forged], replayer, limits(replayer))[0][0]
    assert codes(tolerant) == {Code.HIGHEST_MARGIN, Code.MEAN_MARGIN}


class Shaken(ModelReplayer):
    """An auditor whose batch rounds wildly at one place, and which counts how often it looks twice."""

    looks = 0
    tokens = 0

    def batch(self, pairs: Any) -> Iterator[Computed]:
        for (_, answer), computed in zip(pairs, super().batch(pairs), strict=True):
            computed.logits[3, answer[3]] -= 4
            yield computed

    def precise(self, prompt: Any, answer: Any) -> Computed:
        self.looks += 1
        self.tokens += len(answer)
        return super().precise(prompt, answer)


def test_margin_that_a_second_way_of_computing_does_not_show_is_taken_back(
    chat_model: ModelDir, claim: Claim
) -> None:
    auditor = Shaken(chat_model, SETTINGS)
    (found, measured), *_ = audit_batch([claim], auditor, limits(auditor))
    assert (found.outcome, auditor.looks) == (Outcome.ACCEPTED, 1)
    assert measured.margins[3] < 0.01
    assert len(measured.margins) == len(claim.token_ids)
    # The mean counts every token; one margin too high asks for no more than what leads to it.
    assert auditor.tokens == len(claim.token_ids)
    tight = limits(auditor)
    generous = tight.model_copy(update={"margins": tight.margins.model_copy(update={"mean": 9.0})})
    assert audit_batch([claim], auditor, generous)[0][0].outcome is Outcome.ACCEPTED
    assert (auditor.looks, auditor.tokens) == (2, len(claim.token_ids) + 4)
    # What says more than margins needs no second look.
    lied = replace(claim, text="another text")
    assert Code.TEXT in codes(audit_batch([lied], auditor, limits(auditor))[0][0])
    assert auditor.looks == 2


def test_answers_computed_together_have_the_scores_and_states_they_have_alone(
    replayer: ModelReplayer, claim: Claim
) -> None:
    """Of which the first begin alike, as prompts of one chat template do; one is empty."""
    prompt, answer = replayer.prompt(claim.payload), claim.token_ids
    other = [*prompt[:-2], 9, 8, 7]
    pairs = [(prompt, answer), (other, answer[:5]), (prompt, ()), (prompt[:-1], answer[:1])]
    for pair, found in zip(pairs, replayer.batch(pairs), strict=True):
        (alone,) = replayer.batch([pair])
        assert found.logits.shape == (len(pair[1]), replayer.vocabulary)
        np.testing.assert_allclose(found.logits, alone.logits, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found.hidden, alone.hidden, rtol=1e-3, atol=1e-3)
    (alone,) = replayer.batch([(prompt, answer)])
    np.testing.assert_allclose(alone.logits, replayer.exact(prompt, answer).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("spoil", ["other root", "twice", "wrong tokens", "wrong count", "short fingerprint"])
def test_block_that_is_not_what_the_annex_commits_to_counts_against_the_node(
    claim: Claim, replayer: ModelReplayer, spoil: str
) -> None:
    first, *others = claim.opened
    if spoil == "other root":
        spoilt = annexed(trace_root="0x" + "77" * 32)(claim)
    elif spoil == "twice":
        spoilt = replace(claim, opened=(first, first))
    elif spoil == "wrong tokens":
        block = replace(first.block, token_ids=(1, *first.block.token_ids[1:]))
        spoilt = replace(claim, opened=(replace(first, block=block), *others))
    elif spoil == "wrong count":
        spoilt = replace(claim, opened=(replace(first, count=7),))
    else:
        block = replace(first.block, fingerprint=first.block.fingerprint[:32])
        spoilt = replace(claim, opened=(replace(first, block=block), *others))
    found = audit(spoilt, replayer, limits(replayer), tier=Tier.TOLERANCE)
    assert Code.OPENING in codes(found)
    assert found.outcome is Outcome.REJECTED


def test_without_an_opened_block_the_tolerance_tier_says_what_it_could_not_see(
    claim: Claim, replayer: ModelReplayer
) -> None:
    found = audit(replace(claim, opened=()), replayer, limits(replayer), tier=Tier.TOLERANCE)
    assert (found.outcome, codes(found)) == (Outcome.UNCLEAR, {Code.NO_FINGERPRINT})


def test_exact_tier_is_for_equal_profiles_only(claim: Claim, replayer: ModelReplayer) -> None:
    assert audit(claim, replayer, None).tier is Tier.EXACT
    for change in (
        {"torch": "2.0"},
        {"device": "cuda/x"},
        {"tile_rows": 0},
        {"threads": 2},
        {"dtype": "bfloat16"},
    ):
        profile: Profile = claim.annex.profile.model_copy(update=change)
        other = annexed(profile=profile)(claim)
        assert audit(other, replayer, None).tier is Tier.TOLERANCE
    # The file of limits moves no bits.
    judged = annexed(profile=claim.annex.profile.model_copy(update={"calibration": "0x1"}))(claim)
    assert audit(judged, replayer, None).tier is Tier.EXACT


def test_node_with_less_room_than_the_auditor_is_believed_as_far_as_it_says(
    chat_model: ModelDir, start: Start, replayer: ModelReplayer
) -> None:
    engine = start(chat_model, prompt_block=16, max_batch_tokens=120)
    payload = sampled(chat_model, max_tokens=30_000, temperature_milli=0)
    made = claim_of(engine, payload, run(engine, payload))
    said = made.annex.profile.context_tokens
    assert said < replayer.context_tokens
    assert audit(made, replayer, None).outcome is Outcome.ACCEPTED
    # Without saying so it has cut the answer.
    silent = made.annex.profile.model_copy(update={"context_tokens": 0})
    assert Code.FINISH in codes(audit(annexed(profile=silent)(made), replayer, None))


def test_auditor_computes_as_the_node_says_unless_told_otherwise(claim: Claim) -> None:
    profile = claim.annex.profile.model_copy(update={"threads": 3, "tile_rows": 8, "prompt_block": 32})
    said = annexed(profile=profile)(claim)
    chosen = settings_for(said, EngineSettings(threads=0))
    assert (chosen.threads, chosen.tile_rows, chosen.prompt_block) == (3, 8, 32)
    assert settings_for(said, EngineSettings(threads=1)).threads == 1
    nonsense = profile.model_copy(update={"threads": 1 << 40, "tile_rows": -1})
    chosen = settings_for(annexed(profile=nonsense)(claim), EngineSettings(threads=0))
    assert (chosen.threads, chosen.tile_rows) == (256, EngineSettings().tile_rows)


def test_answer_that_ends_by_itself_is_accepted(
    chat_model: ModelDir, start: Start, replayer: ModelReplayer
) -> None:
    engine = start(chat_model, prompt_block=16)
    for seed in range(40):
        payload = chat(chat_model, "End", max_tokens=200, temperature_milli=2000, seed=seed)
        asked = run(engine, payload)
        if asked.outcome.finish == "stop":
            made = claim_of(engine, payload, asked)
            assert audit(made, replayer, None).outcome is Outcome.ACCEPTED
            assert codes(audit(annexed(finish="length")(made), replayer, None)) == {Code.FINISH}
            return
    pytest.fail("no answer came to an end")


def test_cancelled_answer_is_accepted_as_far_as_it_goes(
    chat_model: ModelDir, start: Start, replayer: ModelReplayer
) -> None:
    engine, payload = start(chat_model, prompt_block=16), sampled(chat_model, max_tokens=200)
    started, ended, events = Event(), Event(), list[Any]()

    def hear(event: Any) -> None:
        events.append(event)
        if isinstance(event, Chunk):
            assert started.wait(60)
            running.stop()
        else:
            ended.set()

    running = engine.submit(job(payload, seed=seed_of(payload, ORDER)), hear)
    started.set()
    assert ended.wait(60)
    asked = Asked(events[:-1], events[-1])
    assert asked.outcome.finish == "cancelled"
    assert 0 < asked.outcome.units_out == len(asked.tokens) < 200
    assert asked.outcome.trace
    assert audit(claim_of(engine, payload, asked), replayer, None).outcome is Outcome.ACCEPTED
