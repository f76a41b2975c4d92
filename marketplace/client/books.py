"""Closing the books of a session: what became of open seats, and the voucher that pays the ended ones."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from typing import Final

import anyio

from marketplace.client.acceptance import accept, draft_voucher
from marketplace.client.bundle import Bundle
from marketplace.client.desk import Desk
from marketplace.client.journal import HeldVoucher, Seat, SeatState, Session, SessionUse
from marketplace.client.problems import GatewayProblem, GatewayTrouble
from marketplace.protocol.errors import BadRequest, ErrorCode, ProviderFault
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.messages import Voucher

_LATE_MS: Final = 5_000


class Books:
    """Ends seats and signs vouchers for one key; never for a receipt that does not hold."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._locks: dict[bytes, anyio.Lock] = defaultdict(anyio.Lock)

    async def acknowledge(self, session: Session) -> bool:
        """Signs and hands over the voucher through the ended prefix; False when it did not arrive.

        Not an error: the next voucher of the session covers the same jobs.
        """
        async with self._locks[session.session_id]:
            try:
                await self._settle_overdue(session)
                return await self._hand_over(session)
            except (GatewayProblem, GatewayTrouble):
                return False

    async def _settle_overdue(self, session: Session) -> None:
        """Ends the seats a crashed or interrupted call left open, once their deadline is past.

        Their receipts, where there are any, are fetched and verified: the node did work that we ordered.
        """
        late_ms = self._desk.now_ms() - _LATE_MS
        seats = self._desk.journal.seats(session.session_id)
        overdue = [s for s in seats if s.state is SeatState.PENDING and s.deadline_ms < late_ms]
        if overdue:
            await self._reconcile(session, overdue)

    async def _hand_over(self, session: Session) -> bool:
        for attempt in range(2):
            held = self._draft(session)
            if held is None or held.taken:
                return True
            try:
                await self._post(held)
            except GatewayProblem as problem:
                # The node may have signed a free receipt after we gave its order up: then its tree is longer.
                if problem.code is not ErrorCode.VOUCHER_MISMATCH or attempt:
                    raise
                seats = self._desk.journal.seats(session.session_id)
                await self._reconcile(session, [seat for seat in seats if seat.digest is None])
                continue
            return True
        return False

    def _draft(self, session: Session) -> HeldVoucher | None:
        """The voucher to hand over, kept before it leaves; None when nothing is to be paid."""
        drafted = draft_voucher(session.session_id, self._desk.journal.seats(session.session_id))
        newest = self._desk.journal.voucher(session.session_id)
        if drafted is None or (newest is None and drafted.amount_atoms == 0):
            return None
        if newest is not None and newest.taken and newest.amount_atoms >= drafted.amount_atoms:
            return newest
        fresh = HeldVoucher(
            session_id=session.session_id,
            through_seq=drafted.through_seq,
            amount_atoms=drafted.amount_atoms,
            message=drafted.encode(),
            signature=self._desk.key.sign(drafted, self._desk.domain),
            taken=False,
        )
        self._desk.journal.put_voucher(fresh)
        return fresh

    async def _post(self, held: HeldVoucher) -> None:
        message = Voucher.decode(held.message).to_json()
        await self._desk.gateway.post(
            "/v1/vouchers", {"voucher": message, "signature": to_hex(held.signature)}
        )
        self._desk.journal.mark_taken(held)

    async def _reconcile(self, session: Session, seats: list[Seat]) -> None:
        listed = await self._desk.gateway.get(f"/v1/sessions/{to_hex(session.session_id)}/receipts")
        rows = {int(row["seq"]): row for row in listed.get("data", []) if not row.get("superseded")}
        for seat in seats:
            row = rows.get(seat.seq)
            if row is not None:
                await self._take_in(session, seat, str(row["receipt_id"]))
            elif seat.state is SeatState.PENDING and seat.deadline_ms < self._desk.now_ms() - _LATE_MS:
                self._desk.journal.end_seat(session.session_id, seat.seq)

    async def _take_in(self, session: Session, seat: Seat, receipt_id: str) -> None:
        """Ends a seat with the receipt the gateway has for it; retires the session where that cannot be."""
        data = await self._desk.gateway.get(f"/v1/receipts/{receipt_id}")
        try:
            bundle = _known(Bundle.from_json(data), session)
            accept(bundle, session, self._desk.domain)
        except (BadRequest, ProviderFault):
            self._retire(session)
            return
        amount = bundle.receipt.amount_atoms
        # Told that an order had failed, we ordered elsewhere: one job is charged once.
        charged_twice = seat.state is SeatState.VOID and amount > 0
        if bundle.order != seat.order or charged_twice:
            self._retire(session)
            return
        digest = bundle.receipt.digest(self._desk.domain)
        self._desk.journal.end_seat(session.session_id, seat.seq, amount_atoms=amount, digest=digest)

    def _retire(self, session: Session) -> None:
        self._desk.journal.use(session.session_id, SessionUse.RETIRED)


def _known(bundle: Bundle, session: Session) -> Bundle:
    """The bundle with the parties we know ourselves in place of the gateway's word."""
    return dataclasses.replace(
        bundle,
        key=session.key,
        signer=session.signer,
        epoch=session.key_epoch,
        node_id=session.node_id,
    )
