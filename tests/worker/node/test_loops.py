"""When the daemon asks the settle process to look."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.worker.settle.fake_escrow import CHALLENGE, EXPIRES_AT, GRACE, ClaimBench
from worker.node.loops import SettleTrigger
from worker.node.parts import _claims_due


class Asked:
    """A queue that counts."""

    def __init__(self) -> None:
        self.times = 0

    def settle(self, **_: Any) -> None:
        self.times += 1


def asks(bench: ClaimBench) -> bool:
    node: Any = SimpleNamespace(
        ledger=bench.ledger, now_ms=bench.clock, options=SimpleNamespace(grace_seconds=GRACE)
    )
    queue: Any = Asked()
    SettleTrigger(bench.ledger, queue, every_ms=1_000, claims_due=lambda: _claims_due(node)).step()
    return bool(queue.times)


def test_settle_process_is_asked_while_there_is_something_to_claim_or_finalise(tmp_path: Path) -> None:
    bench = ClaimBench(tmp_path)
    bench.done_job(1)
    assert not asks(bench)
    bench.at(EXPIRES_AT)
    assert asks(bench)
    bench.run()
    bench.at(EXPIRES_AT + CHALLENGE)
    assert asks(bench)
    bench.run()
    assert not asks(bench)
    bench.ledger.close()


def test_settle_process_is_not_asked_for_what_can_no_longer_be_claimed(tmp_path: Path) -> None:
    bench = ClaimBench(tmp_path)
    bench.done_job(1)
    bench.at(EXPIRES_AT + GRACE)
    assert not asks(bench)
    bench.ledger.close()


def test_voucher_alone_has_the_settle_process_asked(tmp_path: Path) -> None:
    bench = ClaimBench(tmp_path)
    bench.vouchers.take(*bench.voucher(1, 1_003, [bench.done_job(1).digest]))
    assert asks(bench)
    bench.ledger.close()
