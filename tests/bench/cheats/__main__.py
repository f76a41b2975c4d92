"""How often each cheat of a node is found out: `scripts/cheats-engine [--quick]`.

Cheats and honest work are judged by the calibration that ships with this release, which was frozen before,
on prompts and seeds it has not seen, in the tolerance tier: what an auditor on other hardware sees. A job
counts as caught when its verdict is *rejected*; a pool of 8 jobs when one of them or all together are.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from marketplace.protocol.hexes import keccak
from marketplace.protocol.payloads import ChatMessage, ChatPayload
from marketplace.protocol.trace import open_block
from tests.assure.figures import Figure, Part, percent, table
from tests.assure.report import ROOT, write
from tests.bench.cheats.nodes import Cheat, Host, Signed, cheats, honest
from worker.inference.engine import EngineSettings
from worker.inference.replayer import ModelReplayer, use_threads
from worker.models import ensure
from worker.proofs.calibration import Calibration, shipped
from worker.proofs.replay import Claim, audit_batch, audit_exactly
from worker.proofs.trace import TraceWriter
from worker.proofs.verdict import Measured, Outcome, Verdict, pool_verdict

MODEL: Final = "smollm2-135m-instruct"
POOL: Final = 8
_POOLS: Final = 400
# Half a percent of noise on the weights changes less than rounding does: no goal is set for it.
_FREE: Final = frozenset({"weights with 0.5 % noise"})
_QUESTIONS: Final = (
    "What should a beginner know about {}?",
    "Tell a short story in which {} goes missing.",
    "Why did people once distrust {}?",
    "List three uses of {} that nobody expects.",
    "Explain {} to a child of six.",
)
_SUBJECTS: Final = (
    "honey", "the telescope", "copper", "bicycles", "vinegar", "the lighthouse", "paper", "chess", "salt",
    "the windmill", "oranges", "canals", "leather", "candles", "velvet", "the abacus", "walnuts", "clay",
    "the telegraph", "rice", "anchors", "mirrors", "herring", "kites", "ginger", "linen", "bridges",
    "the printing press", "olive oil", "sledges", "marble", "barley",
)  # fmt: skip


def questions(model_id: str, count: int, max_tokens: int) -> list[ChatPayload]:
    """Requests that no calibration has used, each with its own seed."""
    asked = itertools.islice(itertools.cycle(itertools.product(_SUBJECTS, _QUESTIONS)), count)
    return [
        ChatPayload(
            model=model_id,
            messages=(ChatMessage(role="user", content=question.format(subject)),),
            max_tokens=max_tokens,
            temperature_milli=800,
            seed=int.from_bytes(keccak(b"held out again %d" % number)[:8], "big"),
        )
        for number, (subject, question) in enumerate(asked)
    ]


def claim_of(signed: Signed) -> Claim:
    """What the auditor is given: every block opened."""
    count = range(len(signed.blocks))
    return Claim(
        order_hash=signed.order_hash,
        payload=signed.payload,
        annex=signed.annex,
        text=signed.text,
        opened=tuple(open_block(signed.order_hash, signed.blocks, number) for number in count),
    )


def caught_in_pools(found: Sequence[tuple[Verdict, Measured]], limits: Calibration) -> float:
    """Share of pools of 8 that are caught, in percent: of all jobs in turn, or of random ones."""
    rng = random.Random(8)  # noqa: S311 - a fixed choice of pools
    many = len(found) > POOL
    pools = [rng.sample(found, POOL) for _ in range(_POOLS)] if many else [list(found)]
    caught = [
        any(verdict.outcome is Outcome.REJECTED for verdict, _ in pool)
        or pool_verdict([measured for _, measured in pool], limits).outcome is Outcome.REJECTED
        for pool in pools
    ]
    return percent(sum(caught), len(caught))


def rejected(found: Iterable[tuple[Verdict, Measured]]) -> int:
    """How many jobs were rejected alone."""
    return sum(verdict.outcome is Outcome.REJECTED for verdict, _ in found)


class Bench:
    """The true model once for the nodes and once for the auditor."""

    def __init__(self, home: Path, *, slots: int, max_tokens: int) -> None:
        use_threads(1)
        model = ensure(MODEL, home, lambda text: print(text, file=sys.stderr))
        settings = EngineSettings(slots=slots)
        self.host = Host(model, settings)
        self.auditor = ModelReplayer(model, settings)
        self.max_tokens = max_tokens
        found = shipped(self.auditor.model_id, self.auditor.profile)
        if found is None:
            raise SystemExit(
                f"no calibration ships for {MODEL} on {self.auditor.profile.device}; make one with "
                "`watt audit calibrate` and put it into worker/proofs/calibrations"
            )
        self.limits = found

    def judge(
        self, cheat: Cheat, jobs: int
    ) -> tuple[list[tuple[Verdict, Measured]], list[Claim], float, float]:
        """Verdicts on a node's jobs, its claims, and CPU seconds of making and of auditing them."""
        asked = questions(self.auditor.model_id, jobs, self.max_tokens)
        start = time.process_time()
        claims = [claim_of(signed) for signed in self.host.serve(cheat, asked)]
        made = time.process_time()
        found = audit_batch(claims, self.auditor, self.limits)
        return found, claims, made - start, time.process_time() - made


def honest_figures(bench: Bench, jobs: int, *, full: bool) -> list[Figure]:
    """False rejects, and what proofs and audits cost beside batched generation."""
    found, claims, making, auditing = bench.judge(honest(), jobs)
    for verdict, _ in found:
        for reason in verdict.reasons:
            print(f"  honest: {reason.code}: {reason.detail}", file=sys.stderr)
    pools = [found[i : i + POOL] for i in range(0, len(found), POOL)]
    false_pools = [
        pool
        for pool in pools
        if pool_verdict([measured for _, measured in pool], bench.limits).outcome is Outcome.REJECTED
    ]
    exact = sum(audit_exactly(claim, bench.auditor).outcome is Outcome.ACCEPTED for claim in claims[:POOL])
    tokens = sum(len(claim.token_ids) for claim in claims)
    tracing = _tracing(bench, claims)
    return [
        Figure(name="honest jobs", value=jobs, unit="jobs", goal="≥ 1000" if full else ""),
        Figure(name="honest jobs rejected", value=rejected(found), unit="jobs", goal="= 0"),
        Figure(name="honest pools rejected", value=len(false_pools), unit="pools", goal="= 0"),
        Figure(
            name="honest, equal to the bit", value=percent(exact, len(claims[:POOL])), unit="%", goal="= 100"
        ),
        Figure(name="honest tokens", value=tokens, unit="tokens"),
        Figure(
            name="audit ÷ batched generation", value=round(auditing / making, 3), unit="CPU", goal="≤ 0.25"
        ),
        Figure(
            name="traces, share of generation", value=round(100 * tracing / making, 2), unit="%", goal="≤ 3"
        ),
    ]


def _tracing(bench: Bench, claims: Sequence[Claim]) -> float:
    """CPU seconds of writing the traces of these answers again, row by row as while generating."""
    answers = [claim.token_ids for claim in claims]
    rows = [bench.auditor.exact(bench.auditor.prompt(claims[0].payload), answers[0]).hidden] * len(answers)
    start = time.process_time()
    for tokens, hidden in zip(answers, rows, strict=True):
        writer = TraceWriter()
        for place, token in enumerate(tokens):
            writer.see(hidden[place % len(hidden)][None])
            writer.chose(token)
        writer.end()
    return time.process_time() - start


def cheat_figures(bench: Bench, cheat: Cheat, jobs: int, *, full: bool) -> list[Figure]:
    """Detection of one cheat, job by job and in pools."""
    found, _, _, _ = bench.judge(cheat, jobs)
    goal = "" if cheat.name in _FREE else "≥ 99"
    alone = percent(rejected(found), len(found))
    pooled = caught_in_pools(found, bench.limits)
    margin = sum(measured.margins.mean() for _, measured in found) / len(found)
    far = sum(measured.distances.mean() for _, measured in found) / len(found)
    print(f"{cheat.name}: {alone} % alone, {pooled} % pooled", file=sys.stderr)
    figures = [
        Figure(name=f"{cheat.name}, one job", value=alone, unit="%"),
        Figure(name=f"{cheat.name}, {POOL} jobs", value=pooled, unit="%", goal=goal),
    ]
    if full:
        figures += [
            Figure(name=f"{cheat.name}, mean margin", value=round(float(margin), 5)),
            Figure(name=f"{cheat.name}, mean distance", value=round(float(far), 5)),
        ]
    return figures


def main(arguments: Iterable[str]) -> int:
    """Prints the table and writes `build/cheats-engine.json`; 0 when every goal is met."""
    parser = argparse.ArgumentParser(prog="scripts/cheats-engine", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="8 jobs a cheat, 32 honest ones: minutes")
    parser.add_argument("--only", default="", metavar="TEXT", help="cheats whose name holds this text")
    parser.add_argument("--models-dir", type=Path, default=ROOT / "build" / "models", help="model files")
    options = parser.parse_args(list(arguments))
    started = time.monotonic()
    full = not options.quick
    bench = Bench(options.models_dir, slots=32, max_tokens=96 if full else 40)
    parts = [
        Part(name="honest", figures=tuple(honest_figures(bench, 1000 if full else 32, full=full)), seconds=0)
    ]
    figures: list[Figure] = []
    chosen = [cheat for cheat in cheats(min(bench.auditor.ends)) if options.only in cheat.name]
    for cheat in chosen:
        figures += cheat_figures(bench, cheat, 32 if full else POOL, full=full)
    seconds = time.monotonic() - started
    parts.append(Part(name="cheats", figures=tuple(figures), seconds=seconds))
    print(table(parts))
    print(f"written to {write('cheats-engine', parts).relative_to(ROOT)}")
    return 0 if all(part.met for part in parts) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
