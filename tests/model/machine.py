"""The state machine: each step throws the dice for one verb, on both sides of a bench."""

from __future__ import annotations

from typing import Any, ClassVar, Final

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests.model.bench import Tally
from tests.model.claim_verbs import Verbs
from tests.model.dice import THROW
from tests.model.scene import Scene

# How often each is thrown, of all of them.
WEIGHTS: Final = {
    "settle": 6,
    "settle_batch": 4,
    "open_one": 5,
    "open_some": 2,
    "top_up": 4,
    "claim": 4,
    "finalise": 3,
    "hold": 3,
    "resolve": 3,
    "close": 3,
    "expire": 2,
    "deposit": 3,
    "withdraw": 2,
    "set_key": 2,
    "revoke_key": 1,
    "collect": 3,
    "stake": 3,
    "penalise": 2,
    "change_node": 3,
    "trespass": 1,
    "replay": 3,
    "wait": 3,
    "reach": 2,
}
_VERBS: Final = tuple(verb for verb, weight in WEIGHTS.items() for _ in range(weight))
_FEW: Final = 8


class Machine(RuleBasedStateMachine):
    """Half of the markets see all verbs, the others only a few neighbours, and so more of each."""

    tally: ClassVar[Tally] = Tally()
    planted: ClassVar[dict[str, Any]] = {}

    def __init__(self) -> None:
        super().__init__()
        self._counted, self._is_plain = Tally(), True
        self.scene = Scene(self._counted, **self.planted)
        self._verbs = Verbs(self.scene)
        self._few: tuple[str, ...] = ()

    @initialize(narrow=st.booleans(), first=st.sampled_from(range(len(_VERBS))))
    def choose(self, *, narrow: bool, first: int) -> None:
        if narrow:
            self._few = (*_VERBS, *_VERBS)[first : first + _FEW]

    @rule(verb=st.sampled_from(_VERBS), thrown=THROW)
    def step(self, verb: str, thrown: bytes) -> None:
        self._is_plain &= not any(thrown)
        if self._few:
            verb = self._few[thrown[-1] % _FEW]
        getattr(self._verbs, verb)(thrown)

    def teardown(self) -> None:
        self.tally.add(self._counted, is_plain=self._is_plain)
        self.scene.bench.compare_everything()
