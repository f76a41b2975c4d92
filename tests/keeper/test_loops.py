from __future__ import annotations

import asyncio

from marketplace.keeper.loops import LoopBoard, run_loop
from marketplace.protocol.errors import ChainTrouble, ErrorCode


class Turns:
    """A step that fails as scripted and stops the loop after its last turn."""

    def __init__(self, stop: asyncio.Event, script: list[Exception | None]) -> None:
        self.loop = asyncio.get_running_loop()
        self.stop = stop
        self.script = script
        self.taken = 0

    def step(self) -> None:
        outcome = self.script[self.taken]
        self.taken += 1
        if self.taken == len(self.script):
            self.loop.call_soon_threadsafe(self.stop.set)
        if outcome is not None:
            raise outcome

    async def astep(self) -> None:
        self.step()


async def run(script: list[Exception | None], *, plain: bool = True) -> tuple[Turns, LoopBoard]:
    stop, board = asyncio.Event(), LoopBoard(lambda: 1000)
    turns = Turns(stop, script)
    await run_loop("follow", turns.step if plain else turns.astep, 0, stop, board=board)
    return turns, board


async def test_a_loop_takes_turns_until_it_is_stopped() -> None:
    for plain in (True, False):
        turns, board = await run([None, None, None], plain=plain)
        assert turns.taken == 3
        assert [(h.name, h.last_success_ms, h.failures) for h in board.health()] == [("follow", 1000, 0)]


async def test_a_failed_turn_is_remembered_and_the_next_is_taken() -> None:
    turns, board = await run([ValueError("boom"), ChainTrouble(ErrorCode.CHAIN_UNAVAILABLE, "no answer")])
    (health,) = board.health()
    assert turns.taken == 2
    assert (health.failures, health.problem, health.last_success_ms) == (2, "no answer", None)
    assert not health.is_ready(1000, slack_ms=10**9)


async def test_a_good_turn_forgets_failures() -> None:
    _, board = await run([ValueError("boom"), None])
    (health,) = board.health()
    assert (health.failures, health.problem) == (0, None)
    assert health.is_ready(1500, slack_ms=500)
    assert not health.is_ready(1501, slack_ms=500)


async def test_stopping_does_not_wait_for_the_pause() -> None:
    stop, board = asyncio.Event(), LoopBoard(lambda: 0)
    turns = Turns(stop, [None])
    await asyncio.wait_for(run_loop("slow", turns.step, 3_600_000, stop, board=board), 5)
    assert turns.taken == 1
