"""The tiny models of the engine's tests, and claims made of their answers."""

from __future__ import annotations

from typing import Any

import pytest

from marketplace.protocol.annex import Annex, Sampling
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.payloads import Answer, ChatPayload, seed_of, token_logprobs
from marketplace.protocol.trace import open_block, pack_tokens, trace_root
from tests.worker.inference.conftest import Asked, ask, chat, chat_model, start
from worker.inference.engine import Engine
from worker.models import ModelDir
from worker.proofs.replay import Claim

__all__ = ["chat_model", "start"]
ORDER = b"\x07" * 32


def sampled(model: ModelDir, text: str = "Prove it", **fields: Any) -> ChatPayload:
    return chat(model, text, **{"max_tokens": 80, "temperature_milli": 900, **fields})


def run(engine: Engine, payload: ChatPayload, order: bytes = ORDER, **fields: Any) -> Asked:
    return ask(engine, payload, seed=seed_of(payload, order), **fields)


def claim_of(
    engine: Engine, payload: ChatPayload, asked: Asked, order: bytes = ORDER, **changes: Any
) -> Claim:
    """What a node signs for an answer."""
    out, profile = asked.outcome, engine.profile
    annex = Annex(
        trace_id="ab" * 16,
        model=payload.model,
        seed=str(seed_of(payload, order)),
        units_in=out.units_in,
        units_out=out.units_out,
        finish=out.finish,
        device_microseconds=1,
        energy_method="none",
        profile=profile,
        profile_hash=to_hex(profile.digest()),
        sampling=Sampling(
            temperature_milli=payload.temperature_milli,
            top_p_milli=payload.top_p_milli,
            max_tokens=out.max_tokens,
        ),
        token_ids=pack_tokens(asked.tokens),
        trace_root=to_hex(trace_root(order, out.trace)),
    )
    opened = tuple(open_block(order, out.trace, number) for number in range(len(out.trace)))
    annex = annex.model_copy(update=changes)
    told = tuple(token_logprobs(Answer(chunk.body for chunk in asked.chunks)))
    return Claim(
        order_hash=order, payload=payload, annex=annex, text=asked.text, logprobs=told, opened=opened
    )


@pytest.fixture
def seeded() -> bytes:
    return ORDER
