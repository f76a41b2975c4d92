"""Takes a key's voucher: checks it against the own receipts and stores it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from marketplace.protocol.eip712 import Domain
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.messages import Voucher
from marketplace.protocol.signing import BadSignature, signer_of
from marketplace.telemetry.logs import get_logger
from marketplace.telemetry.names import Log
from worker.ledger import HeldSession, HeldVoucher, Ledger, VoucherFacts, VoucherVerdict
from worker.settle.rules import Before, Covered, Ended, judge_voucher
from worker.settle.sessions import SessionBook

log = get_logger(__name__)


class VoucherDesk:
    """The only way a voucher enters the ledger."""

    def __init__(
        self,
        ledger: Ledger,
        sessions: SessionBook,
        domain: Domain,
        now_ms: Callable[[], int],
        *,
        node_id: int,
    ) -> None:
        self._ledger = ledger
        self._sessions = sessions
        self._domain = domain
        self._now_ms = now_ms
        self._node_id = node_id

    def take(self, message: bytes, signature: bytes, trace_ids: Sequence[str] = ()) -> Voucher:
        """Stores a voucher, or finds it stored.

        Raises:
            BadRequest: `voucher_mismatch`, or bytes that are no voucher.
            ChainTrouble: its session is not known and the chain does not answer.
        """
        voucher, key = self._read(message, signature)
        session = self._session(voucher, key)
        held = HeldVoucher(
            session_id=voucher.session_id,
            key=key,
            message=message,
            signature=signature,
            through_seq=voucher.through_seq,
            amount_atoms=voucher.amount_atoms,
            leaves=0,
            peaks=b"",
            owed_atoms=0,
            held_since_ms=self._now_ms(),
            trace_ids=",".join(trace_ids),
        )

        def judge(facts: VoucherFacts) -> VoucherVerdict:
            return _judge(voucher, message, facts, session.deposited_atoms)

        if self._ledger.vouchers.take(held, judge):
            log.info(
                Log.JOB_ACKNOWLEDGED,
                session_id=to_hex(voucher.session_id),
                through_seq=voucher.through_seq,
                amount_atoms=voucher.amount_atoms,
            )
        return voucher

    def _read(self, message: bytes, signature: bytes) -> tuple[Voucher, str]:
        try:
            voucher = Voucher.decode(message)
            return voucher, signer_of(voucher, self._domain, signature)
        except BadSignature as error:
            raise BadRequest(ErrorCode.VOUCHER_MISMATCH, f"signature: {error}") from error
        except ValueError as error:
            raise BadRequest(ErrorCode.MALFORMED_BODY, f"voucher: {error}") from error

    def _session(self, voucher: Voucher, key: str) -> HeldSession:
        session = self._sessions.get(voucher.session_id, key)
        if session is None:
            raise BadRequest(ErrorCode.VOUCHER_MISMATCH, f"no session with this whole id under {key}")
        if session.node_id != self._node_id:
            raise BadRequest(ErrorCode.VOUCHER_MISMATCH, f"the session is of node {session.node_id}")
        if voucher.amount_atoms > session.deposited_atoms:
            # It may have been topped up since it was read.
            session = self._sessions.refresh(voucher.session_id, key) or session
        return session


def _judge(voucher: Voucher, message: bytes, facts: VoucherFacts, deposited_atoms: int) -> VoucherVerdict:
    held = facts.before
    if held is not None and held.message == message:
        # Sent again because our answer was lost.
        return VoucherVerdict(tree=held.tree, owed_atoms=held.owed_atoms, replaces=False)
    before = None
    if held is not None:
        covered = Covered(tree=held.tree, owed_atoms=held.owed_atoms)
        before = Before(through_seq=held.through_seq, amount_atoms=held.amount_atoms, covered=covered)
    covered = judge_voucher(
        voucher,
        before=before,
        ended=[Ended(digest=digest, amount_atoms=amount) for digest, amount in facts.ended],
        unfinished_seq=facts.unfinished,
        deposited_atoms=deposited_atoms,
    )
    return VoucherVerdict(tree=covered.tree, owed_atoms=covered.owed_atoms, replaces=True)
