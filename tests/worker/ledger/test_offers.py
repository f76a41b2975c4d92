from __future__ import annotations

from tests.worker.support import MODEL_ID, Bench


def test_model_has_unfinished_orders_until_the_last_receipt_is_signed(bench: Bench) -> None:
    offers = bench.ledger.offers
    first, second = bench.take(1), bench.take(2)
    assert offers.unfinished(MODEL_ID) == 2
    bench.desk.sign(first, None, bench.work())
    assert offers.unfinished(MODEL_ID) == 1
    bench.desk.fail(second, None, "internal")
    assert offers.unfinished(MODEL_ID) == 0
    assert offers.unfinished(b"\x99" * 32) == 0


def test_last_offer_of_a_model_says_until_when_it_is_promised(bench: Bench) -> None:
    offers = bench.ledger.offers
    until = bench.offer.valid_until
    bench.sell(valid_until=until + 50)
    bench.sell(valid_until=until - 50)
    assert offers.last_end(MODEL_ID) == until + 50
    assert offers.last_end(b"\x99" * 32) == 0
