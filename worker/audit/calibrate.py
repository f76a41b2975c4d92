"""Measures what honest nodes show, and freezes it as a calibration file.

Honest answers are made by the node's engine with batches of several sizes, then computed again as an auditor
of the tolerance tier does. Prompts are put together from the words below and are used for nothing else:
whoever measures detection must ask other questions with other seeds.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from marketplace.protocol.annex import Annex, Sampling
from marketplace.protocol.hexes import keccak, to_hex
from marketplace.protocol.payloads import Answer, ChatMessage, ChatPayload, seed_of
from marketplace.protocol.trace import open_block, pack_tokens, trace_root
from worker.inference.engine import Chunk, EngineJob, EngineSettings
from worker.inference.generate import ChatEngine
from worker.inference.replayer import ModelReplayer
from worker.metering import DeclaredSource
from worker.models import ModelDir
from worker.proofs.calibration import Calibration, Spread
from worker.proofs.replay import Claim, audit_batch
from worker.proofs.verdict import Measured

# Far beyond what honest tokens reach: a single one above it condemns a node.
_ROOM_ABOVE_HIGHEST: Final = 1.5
_LEAST_TOKEN_MARGIN: Final = 0.6
# One honest job in a million would be rejected if means were as the formula has them.
_Z: Final = 4.75
_NEVER_MS: Final = 1 << 60
_BATCHES: Final = (8, 16, 32)
_TEMPERATURES: Final = (800, 1000, 0, 800, 500, 800)
_TOP_PS: Final = (1000, 1000, 1000, 950, 1000, 900)
_ASKS: Final = (
    "Explain {} to a child.",
    "Write two sentences about {}.",
    "What should a visitor know about {}?",
    "List three facts about {}.",
    "Tell a short story in which {} matters.",
    "Why do people care about {}?",
    "Describe {} to somebody who has never seen it.",
)
_THINGS: Final = (
    "rain", "bridges", "bread", "the moon", "bicycles", "a library", "salt", "windmills", "chess",
    "the alphabet", "glaciers", "honey", "clocks", "a harbour", "paper", "earthquakes", "violins", "money",
    "forests", "the stock exchange", "trains", "volcanoes", "football", "maps", "sleep", "coffee", "mirrors",
    "vaccines", "kites", "lighthouses", "cheese", "recycling",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much to measure: jobs in all, and the longest answer of each."""

    jobs: int
    max_tokens: int


def calibrate(
    model: ModelDir, settings: EngineSettings, plan: Plan, say: Callable[[str], None]
) -> Calibration:
    """Runs honest jobs and gives their limits; minutes of computing."""
    auditor = ModelReplayer(model, settings)
    measured: list[Measured] = []
    payloads = requests(auditor.model_id, plan.jobs, plan.max_tokens)
    for batch, part in zip(_BATCHES, np.array_split(np.arange(len(payloads)), len(_BATCHES)), strict=True):
        say(f"{len(part)} answers, {batch} at a time")
        claims = honest_claims(model, replace(settings, slots=batch), [payloads[i] for i in part])
        measured += [found for _, found in audit_batch(claims, auditor, None)]
    return summary(auditor, measured, plan)


def requests(model_id: str, count: int, max_tokens: int) -> list[ChatPayload]:
    """What calibration asks, always the same."""
    return list(itertools.islice(_payloads(model_id, max_tokens), count))


def honest_claims(model: ModelDir, settings: EngineSettings, payloads: Sequence[ChatPayload]) -> list[Claim]:
    """What an honest node signs for these requests, every block opened."""
    engine = ChatEngine(model, settings, energy=DeclaredSource(), now_ms=lambda: 0)
    engine.load()
    try:
        # More callers than slots, so that the batch is full until the end.
        with ThreadPoolExecutor(settings.slots + 2) as callers:
            return list(callers.map(lambda payload: _run(engine, payload), payloads))
    finally:
        engine.close()


def summary(auditor: ModelReplayer, measured: Sequence[Measured], plan: Plan) -> Calibration:
    """Limits of these measurements."""
    margins = Spread.of([job.margins for job in measured if len(job.margins)])
    highest = max(_LEAST_TOKEN_MARGIN, margins.highest * _ROOM_ABOVE_HIGHEST)
    return Calibration(
        model=auditor.model_id,
        profile=auditor.profile.model_copy(update={"calibration": ""}),
        margins=margins,
        distances=Spread.of([job.distances for job in measured if len(job.distances)]),
        token_margin=highest,
        z=_Z,
        made={
            "jobs": len(measured),
            "tokens": sum(len(job.margins) for job in measured),
            "max_tokens": plan.max_tokens,
            "batches": ", ".join(map(str, _BATCHES)),
            "temperatures_milli": ", ".join(map(str, sorted(set(_TEMPERATURES)))),
        },
    )


def _payloads(model_id: str, max_tokens: int) -> Iterator[ChatPayload]:
    asks = itertools.product(_ASKS, _THINGS)
    for number, (ask, thing) in enumerate(itertools.cycle(asks)):
        content = ask.format(thing)
        yield ChatPayload(
            model=model_id,
            messages=(ChatMessage(role="user", content=content),),
            max_tokens=max_tokens,
            temperature_milli=_TEMPERATURES[number % len(_TEMPERATURES)],
            top_p_milli=_TOP_PS[number % len(_TOP_PS)],
            seed=int.from_bytes(keccak(b"calibration %d" % number)[:8], "big"),
        )


def _run(engine: ChatEngine, payload: ChatPayload) -> Claim:
    order = keccak(b"calibration" + payload.model_dump_json().encode())
    chunks: list[Chunk] = []
    seed = seed_of(payload, order)
    job = EngineJob(id=to_hex(order), payload=payload, seed=seed, stop_at_ms=_NEVER_MS)
    outcome = engine.run(job, chunks.append)
    profile = engine.profile
    tokens = [token for chunk in chunks for token in chunk.token_ids]
    annex = Annex(
        trace_id="",
        model=payload.model,
        seed=str(seed),
        units_in=outcome.units_in,
        units_out=outcome.units_out,
        finish=outcome.finish,
        device_microseconds=outcome.reading.device_microseconds,
        energy_method="none",
        profile=profile,
        profile_hash=to_hex(profile.digest()),
        sampling=Sampling(
            temperature_milli=payload.temperature_milli,
            top_p_milli=payload.top_p_milli,
            max_tokens=outcome.max_tokens,
        ),
        token_ids=pack_tokens(tokens),
        trace_root=to_hex(trace_root(order, outcome.trace)),
    )
    opened = tuple(open_block(order, outcome.trace, number) for number in range(len(outcome.trace)))
    text = Answer(chunk.body for chunk in chunks).text
    return Claim(order_hash=order, payload=payload, annex=annex, text=text, opened=opened)
