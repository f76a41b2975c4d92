"""Messages written with what they tell of, what was paid, and content that goes: on both databases."""

from __future__ import annotations

import pytest

from marketplace.protocol.phases import JobPhase
from marketplace.protocol.webhooks import Event
from marketplace.store import content, events, jobs, receipts, sessions, statements, webhooks
from marketplace.store.statements import PaymentKind
from marketplace.store.tables import DeletionRow, SessionRow, WebhookRow
from tests.registry.histories import event
from tests.store.test_jobs import job_row, order_row
from tests.store.test_receipts import receipt_row


def hook_row(webhook_id="wh_a", wanted=tuple(Event), **changes):
    names = ",".join(wanted)
    values = {
        "webhook_id": webhook_id,
        "key": "0xk",
        "url": "https://x.test/",
        "events": f",{names},",
        "created_at_ms": 1,
    }
    return WebhookRow(**(values | changes))


def session_row(session_id="0xs", **changes):
    values = {
        "session_id": session_id,
        "buyer": "0xb",
        "key": "0xk",
        "node_id": 1,
        "key_epoch": 1,
        "deposited_atoms": 100,
        "paid_atoms": 0,
        "through_seq": 0,
        "expires_at": 10,
        "opened_block": 1,
    }
    return SessionRow(**(values | changes))


def told(tx, webhook_id="wh_a"):
    rows = webhooks.deliveries(tx, webhook_id, limit=100, before=None)
    return [(row.event, row.subject, row.reason, row.tx_hash) for row in reversed(rows)]


@pytest.fixture
def listening(store):
    with store.transaction() as tx:
        tx.add(session_row())
        webhooks.add(tx, hook_row())
        webhooks.add(tx, hook_row("wh_other", key="0xother"))
        webhooks.add(tx, hook_row("wh_off", disabled_at_ms=1))
        webhooks.add(tx, hook_row("wh_settled", wanted=[Event.JOB_SETTLED]))
    return store


def delivered(tx, seq=1):
    job = job_row(f"job_{seq}", order_hash=f"0x{seq}", phase="running", ended_at_ms=2, keep_until_ms=5)
    job.payload, job.fingerprint = b"the question", "f"
    jobs.add(tx, job)
    jobs.add_order(tx, order_row(f"0x{seq}", seq, job_id=f"job_{seq}", salt=b"salt"))
    receipts.add(tx, receipt_row(seq), [b"the answer"])
    jobs.move(tx, job, JobPhase.DELIVERED, end_reason="done")
    return job


def test_each_step_of_a_job_is_told_to_who_listens_for_it_and_to_nobody_else(listening):
    with listening.transaction() as tx:
        delivered(tx)
        receipts.mark(tx, ["0x1"], JobPhase.SETTLED, settled_tx="0xaa", end_reason="done")
    with listening.reading() as tx:
        settled = ("job.settled", "job_1", "done", "0xaa")
        assert told(tx) == [
            ("job.ordered", "job_1", "", ""),
            ("job.delivered", "job_1", "done", ""),
            settled,
        ]
        assert told(tx, "wh_settled") == [settled]
        assert told(tx, "wh_other") == told(tx, "wh_off") == []
        assert webhooks.waiting_hooks(tx, 0, 10) == ["wh_a", "wh_settled"]


def test_the_same_happening_is_told_once(listening):
    with listening.transaction() as tx:
        delivered(tx)
        for paid_by in ("0xaa", None, "0xaa", None, "0xbb"):
            phase = JobPhase.SETTLED if paid_by else JobPhase.ACKNOWLEDGED
            receipts.mark(tx, ["0x1"], phase, settled_tx=paid_by, end_reason="done")
    with listening.reading() as tx:
        assert [row[3] for row in told(tx, "wh_settled")] == ["0xaa", "0xbb"]


def test_a_refund_is_told_for_the_jobs_it_reaches_only(listening):
    with listening.transaction() as tx:
        for seq in (1, 2):
            delivered(tx, seq)
        receipts.refund(tx, "0xs", 1, "session_expired")
    with listening.reading() as tx:
        refunds = [row[1:3] for row in told(tx) if row[0] == Event.JOB_REFUNDED]
        assert refunds == [("job_2", "session_expired")]


def test_a_budget_near_its_end_is_told_once_for_each_deposit_of_any_size(listening):
    largest = (1 << 63) - 1
    with listening.transaction() as tx:
        sessions.release(tx, "0xs", reserved_atoms=0, owed_atoms=79)
        assert told(tx) == []
        for _ in range(2):
            sessions.release(tx, "0xs", reserved_atoms=0, owed_atoms=1)
        tx.get(SessionRow, "0xs").deposited_atoms = largest
        tx.flush()
        sessions.release(tx, "0xs", reserved_atoms=0, owed_atoms=1)
        assert [row[2] for row in told(tx)] == ["100"]
        sessions.release(tx, "0xs", reserved_atoms=0, owed_atoms=largest - 82)
        assert [row[2] for row in told(tx)] == ["100", str(largest)]


def test_a_message_is_claimed_by_one_and_numbers_are_never_given_twice(listening):
    with listening.transaction() as tx:
        delivered(tx)
        first, again = webhooks.next_due(tx, "wh_a", 0), webhooks.next_due(tx, "wh_a", 0)
        stale = type(first)(**first.model_dump())
        assert first.number == again.number
        assert webhooks.claim(tx, first, until_ms=9, body="b", created_at_ms=1)
        assert not webhooks.claim(tx, stale, until_ms=9)
        assert webhooks.next_due(tx, "wh_a", 0).number > first.number
        newest = webhooks.deliveries(tx, "wh_a", limit=1, before=None)[0]
        assert webhooks.ended(tx, newest.number, 0, state="taken", ended_at_ms=1)
        assert webhooks.prune(tx, 2) == 1
        webhooks.tell(tx, Event.JOB_DELIVERED, "job_1")
        assert webhooks.deliveries(tx, "wh_a", limit=1, before=None)[0].number > newest.number


def test_payments_say_what_each_event_moved_and_pages_have_each_once(store):
    made = [
        event("SessionOpened", 1, 0, sessionId="0xs", amount=100),
        event("VoucherSettled", 2, 0, sessionId="0xs", throughSeq=1, paid=10),
        event("VoucherSettled", 2, 1, sessionId="0xs", throughSeq=2, paid=10),
        event("SessionToppedUp", 3, 0, sessionId="0xs", added=50, deposited=150),
        event("Claimed", 4, 0, sessionId="0xs", throughSeq=9, amount=40, finalAt=1, receiptHashes=[]),
        event("ClaimFinalised", 5, 0, sessionId="0xs", throughSeq=9, amount=20, paid=30),
        event("SessionClosed", 6, 0, sessionId="0xs", paid=30, returned=100),
        event("ClaimResolved", 7, 0, sessionId="0xs", amount=15, isPaid=True),
        event("ClaimResolved", 7, 1, sessionId="0xs", amount=5, isPaid=False),
    ]
    with store.transaction() as tx:
        tx.add(session_row())
        tx.add(session_row("0xother", key="0xother"))
        events.add_events(tx, made)
        events.add_events(tx, [event("SessionOpened", 8, 0, sessionId="0xother", amount=1)])
    with store.reading() as tx:
        whole = statements.payments_of_session(tx, tx.get(SessionRow, "0xs"))
        kinds = [(payment.kind, payment.amount_atoms) for payment in whole]
        assert kinds == [
            (PaymentKind.OPENED, 100),
            (PaymentKind.PAID, 10),
            (PaymentKind.TOPPED_UP, 50),
            (PaymentKind.PAID, 20),
            (PaymentKind.RETURNED, 100),
            (PaymentKind.PAID, 15),
            (PaymentKind.RETURNED, 5),
        ]
        pages, before, more = [], None, True
        while more:
            found, more = statements.payments_of_key(tx, "0xk", limit=3, before=before)
            pages += found
            before = found[-1].place
        assert [payment.place for payment in pages] == [payment.place for payment in reversed(whole)]


def test_content_goes_once_with_all_that_could_confirm_a_guess(store):
    with store.transaction() as tx:
        job = delivered(tx)
        assert content.due(tx, 4, 10) == []
        assert content.due(tx, 5, 10) == ["job_1"]
        assert content.drop(tx, job, 6)
        assert not content.drop(tx, job, 7)
        row = DeletionRow(job_id="job_1", record=b"r", signature=b"s", signer="0xg")
        content.add_deletion(tx, row)
    with store.reading() as tx:
        job = jobs.find(tx, "job_1")
        assert (job.payload, job.fingerprint, job.deleted_at_ms, job.keep_until_ms) == (b"", "", 6, None)
        assert jobs.order(tx, "0x1").salt == receipts.find(tx, "0x1").annex == b""
        assert receipts.chunks(tx, "0x1") == []
        assert receipts.find(tx, "0x1").message == b"m"
        assert content.due(tx, 1_000, 10) == []
        assert content.deletion(tx, "job_1").signer == "0xg"
