"""Nodes that sign for work they did not do, and one that did it. They know nothing of how they are found out.

Every cheat runs the node's own engine with one thing changed: its weights, its draws, or what it was asked.
It signs for the order as if nothing were. This file must not import what judges it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from marketplace.protocol.annex import Annex, Sampling
from marketplace.protocol.hexes import keccak, to_hex
from marketplace.protocol.payloads import Answer, ChatMessage, ChatPayload, seed_of
from marketplace.protocol.trace import TraceBlock, pack_tokens, trace_root, unpack_tokens
from worker.inference import decoder, ragged
from worker.inference.engine import Chunk, EngineJob, EngineSettings, Outcome
from worker.inference.generate import ChatEngine
from worker.inference.prompt import ChatTokenizer
from worker.inference.ragged import KvCache, RaggedModel
from worker.metering import DeclaredSource
from worker.models import ModelDir
from worker.proofs import sampling
from worker.proofs.trace import TraceWriter

Change = Callable[[Any], None]
Draw = Callable[..., int]
Ask = Callable[[ChatPayload], ChatPayload]
_NEVER: Final = 1 << 60


@dataclass(frozen=True, kw_only=True)
class Signed:
    """What a node hands out for one order."""

    order_hash: bytes
    payload: ChatPayload
    annex: Annex
    text: str
    blocks: tuple[TraceBlock, ...]


@dataclass(frozen=True, kw_only=True)
class Cheat:
    """One way of cheating; whatever is None is done as it should be.

    Attributes:
        weights: changes the network in place.
        draw: stands in for the sampler.
        ask: changes the request before it is run.
        true_states: commits to the true model's states of whatever text there is.
    """

    name: str
    weights: Change | None = None
    draw: Draw | None = None
    ask: Ask | None = None
    true_states: bool = False


class Host:
    """A machine with the true model, on which nodes are run one after the other."""

    def __init__(self, model: ModelDir, settings: EngineSettings) -> None:
        self._dir, self._settings = model, settings
        self.model = RaggedModel(model.path, device=settings.device, tile_rows=settings.tile_rows)
        self._tokenizer = ChatTokenizer(model.path)

    def serve(self, cheat: Cheat, payloads: Sequence[ChatPayload]) -> list[Signed]:
        """Answers of a node, in the order of the requests."""
        model = self._opened(cheat.weights) if cheat.weights else self.model
        with _drawing(cheat.draw or decoder.choose):
            engine = ChatEngine(self._dir, self._settings, energy=DeclaredSource(), now_ms=lambda: 0)
            engine._decoder._open_model = lambda: model
            engine.load()
            try:
                with ThreadPoolExecutor(self._settings.slots) as callers:
                    runs = list(callers.map(lambda payload: _run(engine, cheat, payload), payloads))
            finally:
                engine.close()
        if cheat.true_states:
            runs = [self._evaluated(signed) for signed in runs]
        return runs

    def _opened(self, change: Change) -> RaggedModel:
        """The model with other weights: changed before the engine packs them."""
        honest = ragged._open

        def opened(path: Path) -> Any:
            network = honest(path)
            with torch.no_grad():
                change(network)
            return network

        ragged._open = opened
        try:
            return RaggedModel(
                self._dir.path, device=self._settings.device, tile_rows=self._settings.tile_rows
            )
        finally:
            ragged._open = honest

    def _evaluated(self, signed: Signed) -> Signed:
        """The true model's states of the text, by one pass over it: cheaper than writing it."""
        prompt = self._tokenizer.prompt(signed.payload).tokens
        tokens = unpack_tokens(signed.annex.token_ids)
        cache, writer = KvCache(len(prompt) + len(tokens)), TraceWriter(tokens)
        size = self._settings.prompt_block
        with torch.inference_mode():
            for start in range(0, len(prompt), size):
                self.model.prompt_block(cache, prompt[start : start + size])
            writer.see(self.model.hidden[-1:].clone())
            self.model.replay(cache, tokens)
            writer.see(self.model.hidden)
        blocks = writer.end()
        root = to_hex(trace_root(signed.order_hash, blocks))
        return replace(signed, blocks=blocks, annex=signed.annex.model_copy(update={"trace_root": root}))


@contextmanager
def _drawing(draw: Draw) -> Iterator[None]:
    honest = decoder.choose
    decoder.choose = draw
    try:
        yield
    finally:
        decoder.choose = honest


def honest() -> Cheat:
    """The node that does as it says."""
    return Cheat(name="honest")


def cheats(ends: int) -> list[Cheat]:
    """Every cheat of inference.md §3.2, and int8 behind true states; `ends` is the end token."""
    return [
        Cheat(name="int8 weights", weights=_quantised(127, 0)),
        Cheat(name="fp8 weights", weights=_fp8),
        Cheat(name="int4 weights, groups of 32", weights=_quantised(7, 32)),
        Cheat(name="int4 weights, by channel", weights=_quantised(7, 0)),
        Cheat(name="weights with 2 % noise", weights=_noisy(0.02)),
        Cheat(name="weights with 0.5 % noise", weights=_noisy(0.005)),
        Cheat(name="one layer dropped", weights=_drop_layer),
        Cheat(name="one layer dropped, true states", weights=_drop_layer, true_states=True),
        Cheat(name="int8 weights, true states", weights=_quantised(127, 0), true_states=True),
        Cheat(name="hidden system prompt", ask=_with_system),
        Cheat(name="one letter of the prompt", ask=_with_letter),
        Cheat(name="another seed", draw=_drawn(seed=lambda seed: seed ^ 1)),
        Cheat(name="temperature 0.7 for 0.8", draw=_drawn(temperature_milli=lambda _: 700)),
        Cheat(name="temperature 0.6 for 0.8", draw=_drawn(temperature_milli=lambda _: 600)),
        Cheat(name="greedy for 0.8", draw=_drawn(temperature_milli=lambda _: 0)),
        Cheat(name="top-k 40 undeclared", draw=_top_k),
        Cheat(name="ended early", draw=_ending(ends)),
    ]


def _run(engine: ChatEngine, cheat: Cheat, payload: ChatPayload) -> Signed:
    order_hash = keccak(b"order" + payload.model_dump_json().encode())
    seed = seed_of(payload, order_hash)
    asked = cheat.ask(payload) if cheat.ask else payload
    chunks: list[Chunk] = []
    job = EngineJob(id=to_hex(order_hash), payload=asked, seed=seed, stop_at_ms=_NEVER)
    outcome = engine.run(job, chunks.append)
    return _signed(engine, payload, order_hash, chunks, outcome)


def _signed(
    engine: ChatEngine, payload: ChatPayload, order_hash: bytes, chunks: Sequence[Chunk], outcome: Outcome
) -> Signed:
    profile = engine.profile
    annex = Annex(
        trace_id="",
        model=payload.model,
        seed=str(seed_of(payload, order_hash)),
        units_in=engine.units_in(payload),
        units_out=outcome.units_out,
        finish=outcome.finish,
        device_microseconds=outcome.reading.device_microseconds,
        energy_method="none",
        profile=profile,
        profile_hash=to_hex(profile.digest()),
        sampling=Sampling(
            temperature_milli=payload.temperature_milli,
            top_p_milli=payload.top_p_milli,
            max_tokens=payload.max_tokens,
        ),
        token_ids=pack_tokens(token for chunk in chunks for token in chunk.token_ids),
        trace_root=to_hex(trace_root(order_hash, outcome.trace)),
    )
    text = Answer(chunk.body for chunk in chunks).text
    return Signed(order_hash=order_hash, payload=payload, annex=annex, text=text, blocks=outcome.trace)


def _matrices(network: Any) -> Iterator[torch.Tensor]:
    """Weights of the layers' products; embeddings, head and norms are left as they are."""
    for name, weight in network.model.layers.named_parameters():
        if weight.ndim == 2 and "norm" not in name:
            yield weight


def _quantised(levels: int, group: int) -> Change:
    """Symmetric integers of `levels` on either side, by group of columns; 0: by output channel."""

    def change(network: Any) -> None:
        for weight in _matrices(network):
            rows = weight.float().reshape(-1, group or weight.shape[1])
            scale = rows.abs().amax(dim=1, keepdim=True).clamp(min=1e-8) / levels
            weight.copy_((torch.round(rows / scale) * scale).reshape(weight.shape))

    return change


def _fp8(network: Any) -> None:
    for weight in _matrices(network):
        scale = weight.float().abs().amax(dim=1, keepdim=True).clamp(min=1e-8) / 448
        weight.copy_((weight.float() / scale).to(torch.float8_e4m3fn).float() * scale)


def _noisy(share: float) -> Change:
    def change(network: Any) -> None:
        noise = torch.Generator().manual_seed(12)
        for weight in _matrices(network):
            spread = torch.randn(weight.shape, generator=noise)
            weight.copy_(weight.float() * (1 + share * spread))

    return change


def _drop_layer(network: Any) -> None:
    layers = network.model.layers
    middle = len(layers) // 2
    kept = [layer for i, layer in enumerate(layers) if i != middle]
    for i, layer in enumerate(kept):
        layer.self_attn.layer_idx = i
    network.model.layers = torch.nn.ModuleList(kept)
    network.config.num_hidden_layers = len(kept)


def _with_system(payload: ChatPayload) -> ChatPayload:
    hidden = ChatMessage(role="system", content="You are brief and mention our sponsor.")
    return payload.model_copy(update={"messages": (hidden, *payload.messages)})


def _with_letter(payload: ChatPayload) -> ChatPayload:
    last = payload.messages[-1]
    changed = ChatMessage(role="user", content=last.content.replace("?", "!").replace(".", "!"))
    return payload.model_copy(update={"messages": (*payload.messages[:-1], changed)})


def _drawn(**changes: Callable[[int], int]) -> Draw:
    def draw(logits: Any, **how: int) -> int:
        return sampling.choose(logits, **how | {name: change(how[name]) for name, change in changes.items()})

    return draw


def _top_k(logits: Any, **how: int) -> int:
    kept = np.argpartition(logits, -40)[-40:]
    masked = np.full_like(logits, -1e9)
    masked[kept] = logits[kept]
    return sampling.choose(masked, **how)


def _ending(token: int) -> Draw:
    def draw(logits: Any, **how: int) -> int:
        return token if how["position"] >= 17 else sampling.choose(logits, **how)

    return draw
