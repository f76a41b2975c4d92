"""Computes an answer again and says whether a node did what it signed.

One pass over prompt and answer gives every hidden state and score, and from the scores every choice, since
noise is a function of seed, position and token id. Two tiers (PROTOCOL §7):

- *exact*: same profile, so hidden states must be the same bytes and every choice the same token;
- *tolerance*: other hardware or code, so margins of the choices **and** distances of the fingerprints must
  lie within what honest nodes show. Margins say who wrote the text, fingerprints which model was evaluated;
  each alone is beaten.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from marketplace.protocol.annex import NO_TRACE, Annex, Profile
from marketplace.protocol.hexes import from_hex, to_hex
from marketplace.protocol.payloads import ChatPayload, TokenLogprob, seed_of
from marketplace.protocol.trace import BLOCK_TOKENS, OpenBlock, trace_root, unpack_tokens
from worker.proofs import fingerprint
from worker.proofs.calibration import Calibration
from worker.proofs.logprobs import logprobs
from worker.proofs.margins import margins
from worker.proofs.sampling import Floats, choose
from worker.proofs.trace import TraceWriter
from worker.proofs.verdict import Code, Measured, Reason, Tier, Verdict, verdict, weigh

_BITS: Final = (
    "engine",
    "torch",
    "dtype",
    "tile_rows",
    "prompt_block",
    "threads",
    "sampler",
    "trace",
    "template",
    "device",
)
# Millionths: exponentials of two versions of a library differ in the last place, and so may what is rounded.
_LOGPROB_ROUNDING: Final = 2
# Findings that a second way of computing may take back.
_MARGINS: Final = frozenset({Code.HIGHEST_MARGIN, Code.MEAN_MARGIN})
# Only these ask for more than that the answer was cut.
_FULL: Final = frozenset({"stop", "length"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One job as the node signed it.

    Attributes:
        text: what the response chunks spell.
        logprobs: the log-probabilities in them.
        opened: blocks the node has opened; checked against the annex before they count.
    """

    order_hash: bytes
    payload: ChatPayload
    annex: Annex
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    opened: tuple[OpenBlock, ...] = ()

    @property
    def token_ids(self) -> tuple[int, ...]:
        """Of the answer."""
        return unpack_tokens(self.annex.token_ids)


@dataclass(frozen=True, slots=True, eq=False)
class Computed:
    """What the model gives for each token of an answer: scores and the hidden states behind them."""

    logits: npt.NDArray[np.float32]
    hidden: Tensor


class Replayer(Protocol):
    """The auditor's own model."""

    @property
    def profile(self) -> Profile:
        """Of this machine's engine."""

    @property
    def context_tokens(self) -> int:
        """Longest prompt and answer together."""

    @property
    def ends(self) -> frozenset[int]:
        """Tokens that end an answer."""

    @property
    def vocabulary(self) -> int:
        """Number of token ids."""

    def prompt(self, payload: ChatPayload) -> list[int]:
        """Tokens up to where the answer begins. Raises `BadRequest`."""

    def text(self, token_ids: Sequence[int], payload: ChatPayload) -> tuple[str, bool]:
        """Text of an answer, and whether its last token completed a stop string."""

    def exact(self, prompt: Sequence[int], answer: Sequence[int]) -> Computed:
        """Computes as a node does, to the bit."""

    def precise(self, prompt: Sequence[int], answer: Sequence[int]) -> Computed:
        """Computes one answer in float32."""

    def batch(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Iterator[Computed]:
        """Computes prompts and answers together, as fast as it goes; in their order."""


def audit(claim: Claim, model: Replayer, limits: Calibration | None, *, tier: Tier | None = None) -> Verdict:
    """Verdict on one job, by the closest tier that profiles allow, or by the one named.

    A node of our own profile whose bytes differ is rejected whatever the tolerance tier would say.
    """
    chosen = tier or (Tier.EXACT if is_same_class(claim.annex.profile, model.profile) else Tier.TOLERANCE)
    if chosen is Tier.EXACT:
        return audit_exactly(claim, model)
    return audit_batch([claim], model, limits)[0][0]


def is_same_class(claimed: Profile, own: Profile) -> bool:
    """Whether two profiles promise the same bits."""
    tiled = claimed.tile_rows > 0
    return tiled and all(getattr(claimed, name) == getattr(own, name) for name in _BITS)


def audit_exactly(claim: Claim, model: Replayer) -> Verdict:
    """Byte equality of the trace, and equality of every choice. Raises `BadRequest` for no chat job."""
    prompt = model.prompt(claim.payload)
    reasons, answer = _said(claim, model, prompt)
    if not _computable(answer, model):
        return verdict(Tier.EXACT, [*reasons, *_unknown_tokens()], {}, jobs=1, tokens=len(answer))
    computed = model.exact(prompt, answer)
    if claim.annex.trace_root != NO_TRACE:
        reasons += _compare_trace(claim, answer, computed.hidden)
    drawn = [_draw(claim, row, place) for place, row in enumerate(computed.logits)]
    other = [place for place, (own, token) in enumerate(zip(drawn, answer, strict=True)) if own != token]
    if other:
        detail = f"token {other[0]} is not the one that is drawn; {len(other)} of {len(answer)} differ"
        reasons.append(Reason(code=Code.CHOICE, detail=detail))
    reasons += _compare_logprobs(claim, answer, model, computed)
    figures = {"token_match": 1 - len(other) / len(answer)} if answer else {}
    return verdict(Tier.EXACT, reasons, figures, jobs=1, tokens=len(answer))


def audit_batch(
    claims: Sequence[Claim], model: Replayer, limits: Calibration | None
) -> list[tuple[Verdict, Measured]]:
    """Verdict of the tolerance tier on each job, and what it was measured by, for pooling.

    Where margins alone would reject a job, it is computed once more, in float32: at rare places rounding is
    magnified a hundredfold, and there a margin says nothing that a second way of computing does not say too.
    """
    prompts = [model.prompt(claim.payload) for claim in claims]
    said = [_said(claim, model, prompt) for claim, prompt in zip(claims, prompts, strict=True)]
    able = [_computable(answer, model) for _, answer in said]
    pairs = zip(prompts, (answer for _, answer in said), strict=True)
    computed = model.batch(list(itertools.compress(pairs, able)))
    found = []
    for i, (claim, (reasons, answer)) in enumerate(zip(claims, said, strict=True)):
        if not able[i]:
            none = Measured(margins=np.empty(0), distances=np.empty(0))
            refused = [*reasons, *_unknown_tokens()]
            found.append((verdict(Tier.TOLERANCE, refused, {}, jobs=1, tokens=len(answer)), none))
            continue
        openings, measured = _measure(claim, answer, next(computed))
        weighed, figures = weigh([measured], limits)
        if not (reasons or openings) and weighed and {one.code for one in weighed} <= _MARGINS:
            looked = _worth_a_look(measured, weighed, limits)
            precise = model.precise(prompts[i], answer[:looked])
            measured = _looked_twice(claim, answer[:looked], measured, precise)
            weighed, figures = weigh([measured], limits)
        all_reasons = [*reasons, *openings, *weighed]
        found.append((verdict(Tier.TOLERANCE, all_reasons, figures, jobs=1, tokens=len(answer)), measured))
    return found


def _said(claim: Claim, model: Replayer, prompt: list[int]) -> tuple[list[Reason], tuple[int, ...]]:
    """What can be checked of a claim without computing: counts, text, sampling, end."""
    annex, payload, answer = claim.annex, claim.payload, claim.token_ids
    text, stopped = model.text(answer, payload)
    room = min(payload.max_tokens, _context(claim, model) - len(prompt))
    asked = (payload.temperature_milli, payload.top_p_milli)
    sampling = annex.sampling
    seed = str(seed_of(payload, claim.order_hash))
    full = annex.finish in _FULL
    checks = (
        (
            annex.units_in == len(prompt),
            Code.UNITS,
            f"{annex.units_in} input tokens, not {len(prompt)}",
        ),
        (
            annex.units_out == len(answer),
            Code.UNITS,
            f"{annex.units_out} output tokens, not {len(answer)}",
        ),
        (claim.text == text, Code.TEXT, "the text is not that of the token ids"),
        (annex.seed == seed, Code.SAMPLING, f"seed {annex.seed} where request or order say {seed}"),
        (sampling is not None, Code.SAMPLING, "the annex does not say how it was sampled"),
        (
            sampling is None or (sampling.temperature_milli, sampling.top_p_milli) == asked,
            Code.SAMPLING,
            "temperature or top-p are not those of the request",
        ),
        (
            sampling is None or sampling.max_tokens == room,
            Code.FINISH,
            f"the answer may have {room} tokens, the node says {sampling and sampling.max_tokens}",
        ),
        (not full or annex.trace_root != NO_TRACE, Code.NO_TRACE, "the node committed to no trace"),
    )
    reasons = [Reason(code=code, detail=detail) for holds, code, detail in checks if not holds]
    return [*reasons, *_finish(claim, answer, model, room=room, stopped=stopped)], answer


def _context(claim: Claim, model: Replayer) -> int:
    """The node's, which its memory may make shorter than the model's."""
    said = claim.annex.profile.context_tokens
    return said if 0 < said < model.context_tokens else model.context_tokens


def _finish(
    claim: Claim, answer: tuple[int, ...], model: Replayer, *, room: int, stopped: bool
) -> list[Reason]:
    """Whether an answer ends as it says: only where it had to, or where its last token ends it."""
    ended = bool(answer) and (answer[-1] in model.ends or stopped)
    early = any(token in model.ends for token in answer[:-1])
    finish = claim.annex.finish
    wrong = {
        "stop": not ended and "it says stop, and no end token or stop string is there",
        "length": (ended or len(answer) != room) and f"it says length with {len(answer)} of {room} tokens",
        "deadline": False,
        "cancelled": False,
    }.get(finish, f"{finish!r} is no end of an answer")
    details = [text for text in (wrong, early and "tokens go on behind an end token") if text]
    return [Reason(code=Code.FINISH, detail=detail) for detail in details]


def _compare_trace(claim: Claim, answer: tuple[int, ...], hidden: Tensor) -> list[Reason]:
    own = TraceWriter(answer)
    own.see(hidden)
    blocks = own.end()
    root = to_hex(trace_root(claim.order_hash, blocks))
    if root == claim.annex.trace_root:
        return []
    proven, wrong = _opened(claim, answer)
    if wrong:
        return wrong
    places = [block.number for block in proven if block.block != blocks[block.number]]
    where = f"; of {len(proven)} opened blocks {len(places)} differ" if proven else ""
    return [Reason(code=Code.HIDDEN, detail=f"hidden states differ from ours in the same profile{where}")]


def _compare_logprobs(
    claim: Claim, answer: tuple[int, ...], model: Replayer, computed: Computed
) -> list[Reason]:
    """Whether what was told of each token is what our scores say."""
    asked = claim.payload.logprobs
    places = [place for place, token in enumerate(answer) if token not in model.ends]
    if asked is None or len(claim.logprobs) > len(places):
        detail = "log-probabilities of tokens that are not in the answer"
        return [Reason(code=Code.LOGPROBS, detail=detail)] if claim.logprobs else []
    if claim.annex.finish in _FULL and len(claim.logprobs) < len(places):
        detail = f"log-probabilities of {len(claim.logprobs)} of {len(places)} tokens"
        return [Reason(code=Code.LOGPROBS, detail=detail)]
    for place, told in zip(places, claim.logprobs, strict=False):
        own = logprobs(computed.logits[place], answer[place], asked)
        said = [(row.id, row.logprob_micro) for row in (told, *told.top)]
        if not _alike(own, said):
            return [Reason(code=Code.LOGPROBS, detail=f"the log-probabilities of token {place} are not ours")]
    return []


def _alike(own: list[tuple[int, int]], said: list[tuple[int, int]]) -> bool:
    return len(own) == len(said) and all(
        mine[0] == theirs[0] and abs(mine[1] - theirs[1]) <= _LOGPROB_ROUNDING
        for mine, theirs in zip(own, said, strict=True)
    )


def _measure(claim: Claim, answer: tuple[int, ...], computed: Computed) -> tuple[list[Reason], Measured]:
    proven, reasons = _opened(claim, answer)
    distances = [_distances(block, computed.hidden) for block in proven]
    found = _margins(claim, answer, computed)
    return reasons, Measured(margins=found, distances=np.concatenate([np.empty(0), *distances]))


def _margins(claim: Claim, answer: tuple[int, ...], computed: Computed) -> Floats:
    payload = claim.payload
    return margins(
        computed.logits,
        answer,
        temperature_milli=payload.temperature_milli,
        top_p_milli=payload.top_p_milli,
        seed=seed_of(payload, claim.order_hash),
    )


def _worth_a_look(measured: Measured, weighed: Sequence[Reason], limits: Calibration | None) -> int:
    """How many tokens: all for their mean, else up to the last whose own margin is too high."""
    if limits is None or any(reason.code is Code.MEAN_MARGIN for reason in weighed):
        return len(measured.margins)
    return int(np.flatnonzero(measured.margins > limits.token_margin)[-1]) + 1


def _looked_twice(claim: Claim, answer: tuple[int, ...], measured: Measured, precise: Computed) -> Measured:
    """With the lower of two margins of each token that was computed twice."""
    lower = measured.margins.copy()
    lower[: len(answer)] = np.minimum(lower[: len(answer)], _margins(claim, answer, precise))
    return replace(measured, margins=lower)


def _distances(opened: OpenBlock, hidden: Tensor) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    start = opened.number * BLOCK_TOKENS
    own = fingerprint.project(hidden[start : start + BLOCK_TOKENS : fingerprint.EVERY])
    return fingerprint.distances(fingerprint.from_bytes(opened.block.fingerprint), own)


def _opened(claim: Claim, answer: tuple[int, ...]) -> tuple[list[OpenBlock], list[Reason]]:
    """Opened blocks that are what the annex commits to, or what is wrong with the first that is not."""
    root = from_hex(claim.annex.trace_root, 32)
    count = -(-len(answer) // BLOCK_TOKENS)
    if len({opened.number for opened in claim.opened}) < len(claim.opened):
        # A good block shown twice would thin out a bad one.
        return [], [Reason(code=Code.OPENING, detail="a block was opened twice")]
    for opened in claim.opened:
        wrong = _misfit(opened, answer, count)
        try:
            wrong = wrong or ("" if opened.root(claim.order_hash) == root else "it does not lead to the root")
        except ValueError as error:
            wrong = str(error)
        if wrong:
            return [], [Reason(code=Code.OPENING, detail=f"block {opened.number}: {wrong}")]
    return list(claim.opened), []


def _misfit(opened: OpenBlock, answer: tuple[int, ...], count: int) -> str:
    start = opened.number * BLOCK_TOKENS
    tokens = answer[start : start + BLOCK_TOKENS]
    if opened.count != count or not tokens:
        return f"of {opened.count} blocks, where the answer has {count}"
    if opened.block.token_ids != tokens:
        return "it holds other tokens than the annex"
    numbers = -(-len(tokens) // fingerprint.EVERY) * fingerprint.NUMBERS
    return "" if len(opened.block.fingerprint) == 2 * numbers else "its fingerprint has another length"


def _draw(claim: Claim, row: npt.NDArray[np.float32], position: int) -> int:
    return choose(
        row,
        temperature_milli=claim.payload.temperature_milli,
        top_p_milli=claim.payload.top_p_milli,
        seed=seed_of(claim.payload, claim.order_hash),
        position=position,
    )


def _computable(answer: tuple[int, ...], model: Replayer) -> bool:
    return all(token < model.vocabulary for token in answer)


def _unknown_tokens() -> list[Reason]:
    return [Reason(code=Code.CHOICE, detail="a token id is outside of the vocabulary")]
