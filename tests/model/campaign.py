"""Runs of the machine: the counted one, and those that have to fail."""

from __future__ import annotations

from typing import Any, Final

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.bench import Mismatch, Tally
from tests.model.evm import error_names
from tests.model.machine import Machine

# What only one contract may tell another: nobody else ever succeeds.
VERBS_OF_OTHERS: Final = frozenset(
    f"{contract}.{verb}"
    for contract, verbs in {
        "escrow": ("setSettler", "setNode", "setServing"),
        "registry": ("lock", "unlock"),
    }.items()
    for verb in verbs
)
# Of constructors, and of tokens that are not plain.
_NOT_OF_CALLS: Final = frozenset(
    {
        "Escrow_WrongMaxSession",
        "Escrow_WrongGrace",
        "Escrow_WrongChallenge",
        "Escrow_WrongDelta",
        "NodeRegistry_DelayTooShort",
        "NodeRegistry_WrongEscrow",
        "NodeRegistry_WrongToken",
        "NodeRegistry_WrongDelta",
    }
)
STEPS: Final = 100
# From the eleventh example on Hypothesis mostly repeats earlier ones with small changes.
_ROUND_EXAMPLES: Final = 10


def checked(calls: int, first_seed: int = 0) -> Tally:
    """Checks at least so many calls, round by round; raises `Mismatch` with the shortest way to it."""
    tally = Tally()
    number = first_seed
    while tally.calls < calls:
        _run(_machine(tally), number, _ROUND_EXAMPLES, (Phase.generate, Phase.shrink))
        number += 1
    return tally


def found_after(calls: int, **planted: Any) -> int | None:
    """Calls until a planted difference shows; nothing when it does not within about so many."""
    tally, number = Tally(), 0
    try:
        while tally.calls < calls:
            _run(_machine(tally, planted), number, _ROUND_EXAMPLES, (Phase.generate,))
            number += 1
    except Mismatch:
        return tally.calls
    return None


def unseen_errors(tally: Tally) -> set[str]:
    """Errors that a call can be refused with and none was."""
    ours = {name for name in error_names() if name.startswith(("Escrow_", "NodeRegistry_", "ReceiptReader_"))}
    return ours - _NOT_OF_CALLS - set(tally.errors)


def _machine(tally: Tally, planted: dict[str, Any] | None = None) -> type[Machine]:
    return type("CountedMachine", (Machine,), {"tally": tally, "planted": planted or {}})


def _run(machine: type[Machine], number: int, examples: int, phases: tuple[Phase, ...]) -> None:
    chosen = settings(
        max_examples=examples,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        phases=phases,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(seed(number)(machine), settings=chosen)
