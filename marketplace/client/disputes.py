"""Disputes by transactions of one's own: proofs, demands, challenges, and a juror's verbs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from marketplace.chain import court, disputes, history
from marketplace.chain.court import CaseView, JurorView, SeatView
from marketplace.chain.disputes import CaseState, Evidence, Verdict
from marketplace.chain.history import ClaimMade
from marketplace.client.bundle import Bundle
from marketplace.client.claims import ClaimedJob, Claims, claims_of
from marketplace.client.journal import Journal
from marketplace.client.wallet import BuyerWallet
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.hexes import ZERO32, from_hex, keccak, to_hex
from marketplace.protocol.messages import Open
from marketplace.protocol.money import format_atoms, parse_atoms
from marketplace.protocol.signing import Signer
from marketplace.protocol.transactions import TxRecord

# What can be disputed: a job with its bundle, or one that its buyer knows from the node's claim alone.
Job = Bundle | ClaimedJob

# What comes next in each state, for whoever looks at a case; the deadlines are those of the court's rules.
NEXT: Final = {
    CaseState.DEMANDED: "The node has to hand the response in; after that time the money is the buyer's.",
    CaseState.ANSWERED: "The response can be challenged; after that time the node is paid.",
    CaseState.DRAWING: "Anybody draws the jurors: watt dispute advance",
    CaseState.COMMITTING: "Jurors hand sealed verdicts in: watt juror commit",
    CaseState.REVEALING: "Jurors open their verdicts: watt juror reveal",
    CaseState.UPHELD: "Ended against the node.",
    CaseState.DISMISSED: "Ended for the node.",
    CaseState.VOID: "Ended without a verdict: the job is refunded, nobody is punished.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseFile:
    """A case with its seats; `case_id` is the digest of the receipt."""

    case_id: bytes
    view: CaseView
    seats: list[SeatView]


class Disputes:
    """The court, as one wallet deals with it.

    Args:
        journal: knows the terms of sessions opened from here; those of others are read from the chain.
    """

    def __init__(self, wallet: BuyerWallet, journal: Journal | None = None) -> None:
        self.wallet, self._journal = wallet, journal
        self._chain, self._here = wallet.chain, wallet.deployment

    def claims(self, session_id: bytes) -> Claims:
        """What was claimed of a session, beside what the journal knows of it.

        Raises:
            BadRequest: the session's terms cannot be found.
        """
        return claims_of(self._chain, session_id, self._terms(session_id), self._journal)

    def case_id(self, job: Job) -> bytes:
        """The case of a job's receipt, opened or not."""
        return job.receipt.digest(self._here.domain)

    def prove_two_receipts(self, first: Job, second: Job) -> TxRecord:
        """Proves that a node signed two receipts for one order; decided at once.

        Raises:
            BadRequest: the two are of different orders, or the same receipt, or the court refuses.
        """
        if first.order != second.order:
            raise _no_proof("the two receipts are for different orders")
        if first.receipt == second.receipt:
            raise _no_proof("both are the same receipt")
        # Where one of the two is claimed, it is that one whose money is struck.
        ordered = sorted((self._proof_of(first), self._proof_of(second)), key=lambda e: not e.claimed)
        other = ordered[1]
        call = disputes.prove_two_receipts(self._here, ordered[0], other.receipt, other.signature)
        return self.wallet.send(call)

    def prove_overcharge(self, bundle: Bundle) -> TxRecord:
        """Proves that a receipt charges more than its offer and order allow; decided at once."""
        call = disputes.prove_overcharge(self._here, self._proof_of(bundle), bundle.offer)
        return self.wallet.send(call)

    def pay_award(self, job: Job) -> TxRecord:
        """Sends a proof's award to the buyer; anybody may."""
        order_hash = job.order.digest(self._here.domain)
        if not court.proof(self._chain, order_hash).award_atoms:
            raise BadRequest(
                ErrorCode.NOT_FOUND,
                "there is no award to pay for this order",
                hint="It was paid, or nothing was proven: watt dispute show JOB",
            )
        return self.wallet.send(disputes.pay_award(self._here, order_hash))

    def bond_atoms(self) -> int:
        """What opening a case costs until it is upheld."""
        return court.rules(self._chain).bond_atoms

    def demand(self, job: Job) -> TxRecord:
        """Demands the response of a claimed job; puts the bond up. Buyer or key only.

        Raises:
            BadRequest: nothing claims the job any more, it is disputed already, or the wallet lacks the bond.
        """
        case_id = self.case_id(job)
        if court.case(self._chain, case_id):
            raise BadRequest(
                ErrorCode.INVALID_REQUEST,
                f"this job is disputed already, as case {to_hex(case_id)}",
                hint=f"See where it stands: watt dispute show {to_hex(case_id)}",
            )
        evidence = self._evidence(job, self._claimed_in_time(job))
        if not evidence.claimed:
            raise BadRequest(
                ErrorCode.NOT_FOUND,
                "no pending claim bills this job, so there is nothing to hold back",
                hint="A job that is paid already can be challenged: watt dispute challenge JOB",
            )
        self._approve_bond()
        return self.wallet.send(disputes.demand(self._here, evidence))

    def challenge(self, job: Job, evidence_hash: bytes) -> TxRecord:
        """Has jurors judge a job; puts the bond up. The hash is of what each of them will be given.

        Raises:
            BadRequest: its claim waits to be finalised, the wallet lacks the bond, or the court refuses.
        """
        # What is held back for a case already is no longer looked for in the claim.
        is_new = court.case(self._chain, self.case_id(job)) is None
        evidence = self._evidence(job, self._claimed_in_time(job) if is_new else ())
        self._approve_bond()
        return self.wallet.send(disputes.challenge(self._here, evidence, evidence_hash))

    def answer(self, case_id: bytes, response: bytes) -> TxRecord:
        """Hands a demanded response in, sealed to the order's reply key. Owner or settler of the node."""
        return self.wallet.send(disputes.answer(self._here, case_id, response))

    def refer(self, case_id: bytes, evidence_hash: bytes) -> TxRecord:
        """Puts a demand before jurors. As `answer`."""
        return self.wallet.send(disputes.refer(self._here, case_id, evidence_hash))

    def advance(self, case_id: bytes) -> TxRecord:
        """Moves a case on as far as time allows; anybody may."""
        self.show(case_id)
        return self.wallet.send(disputes.advance(self._here, case_id))

    def show(self, case_id: bytes) -> CaseFile:
        """A case as it is now.

        Raises:
            BadRequest: it was never opened.
        """
        view = court.case(self._chain, case_id)
        if view is None:
            raise BadRequest(
                ErrorCode.NOT_FOUND,
                f"there is no case {to_hex(case_id)}",
                hint="A case has the digest of its receipt; open one: watt dispute demand JOB",
            )
        return CaseFile(case_id=case_id, view=view, seats=court.seats(self._chain, case_id))

    # ---------------------------------------------------------------------------------------------- jurors

    def juror(self) -> JurorView:
        """This wallet's money in the court, and whether it can be drawn."""
        return court.juror(self._chain, self.wallet.address)

    def enrol(self, amount: str) -> TxRecord:
        """Joins the pool of jurors, or adds to the deposit; 0 only joins. Staked providers only."""
        atoms = parse_atoms(amount, self._here.token_decimals)
        if atoms:
            self.wallet.atoms(amount, most=self._chain.token_balance_atoms(self.wallet.address))
            self.wallet.approve(self._here.court, atoms)
        return self.wallet.send(disputes.enrol(self._here, atoms))

    def resign(self) -> TxRecord:
        """Leaves the pool; seats stay until their cases end."""
        return self.wallet.send(disputes.resign(self._here))

    def commit(self, case_id: bytes, verdict: Verdict) -> TxRecord:
        """Hands a sealed verdict in; what opens it again is derived from the wallet's key."""
        case = self.show(case_id).view
        salt = verdict_salt(self.wallet.signer, case_id, case.challenger, case.round)
        sealed = disputes.commitment(case_id, case.round, self.wallet.address, verdict, salt)
        return self.wallet.send(disputes.commit(self._here, case_id, sealed))

    def reveal(self, case_id: bytes) -> tuple[Verdict, TxRecord]:
        """Opens the verdict that was committed from this wallet, and says which it is.

        Raises:
            BadRequest: this wallet has no sealed verdict in the case.
        """
        found = self.show(case_id)
        case, seats = found.view, found.seats
        sealed = next((s.commitment for s in seats if s.juror == self.wallet.address), ZERO32)
        salt = verdict_salt(self.wallet.signer, case_id, case.challenger, case.round)
        for verdict in (v for v in Verdict if v is not Verdict.NONE):
            if disputes.commitment(case_id, case.round, self.wallet.address, verdict, salt) == sealed:
                return verdict, self.wallet.send(disputes.reveal(self._here, case_id, verdict, salt))
        raise BadRequest(
            ErrorCode.NOT_FOUND,
            f"{self.wallet.address} has no sealed verdict in case {to_hex(case_id)}",
            hint="Hand one in first: watt juror commit CASE VERDICT",
        )

    def withdraw(self, amount: str) -> TxRecord:
        """Takes bonds that came back, fees and awards out of the court."""
        money = self.juror()
        atoms = self.wallet.atoms(amount, most=money.balance_atoms - money.locked_atoms)
        return self.wallet.send(disputes.withdraw(self._here, atoms))

    # -------------------------------------------------------------------------------------------- evidence

    def _evidence(self, job: Job, claimed: tuple[bytes, ...]) -> Evidence:
        return Evidence(
            terms=self._terms(job.order.session_id),
            order=job.order,
            receipt=job.receipt,
            signature=job.receipt_signature,
            claimed=claimed,
        )

    def _proof_of(self, job: Job) -> Evidence:
        """Evidence that strikes the job from its claim while that can be; later the proof stands alone."""
        claim = self._claim_on(job)
        is_open = claim is not None and self._chain.next_timestamp() < claim.final_at
        can_strike = is_open and court.case(self._chain, self.case_id(job)) is None
        return self._evidence(job, claim.digests if claim and can_strike else ())

    def _claimed_in_time(self, job: Job) -> tuple[bytes, ...]:
        """Receipts of the pending claim that bills a job; none where nothing does.

        Raises:
            BadRequest: the claim's window is over, but nobody has finalised it.
        """
        claim = self._claim_on(job)
        if claim and self._chain.next_timestamp() >= claim.final_at:
            session = to_hex(job.order.session_id)
            raise BadRequest(
                ErrorCode.INVALID_REQUEST,
                f"the claim on session {session} can no longer be disputed; it only waits to be finalised",
                hint=f"Finalise it, then challenge what was paid: watt session finalise {session}",
            )
        return claim.digests if claim else ()

    def _claim_on(self, job: Job) -> ClaimMade | None:
        """The pending claim that lists a job's receipt. Refuses jobs of another market."""
        if job.domain != self._here.domain:
            raise BadRequest(
                ErrorCode.INVALID_REQUEST,
                f"the job is of the escrow {job.domain.escrow} on chain {job.domain.chain_id}",
                hint="Name its own market: WATT_RPC_URL and WATT_DEPLOYMENT_PATH.",
            )
        made, digest = history.claims_made(self._chain, job.order.session_id), self.case_id(job)
        return next((claim for claim in made if claim.is_pending and digest in claim.digests), None)

    def _approve_bond(self) -> None:
        bond, held = self.bond_atoms(), self._chain.token_balance_atoms(self.wallet.address)
        if held < bond:
            decimals, symbol = self._here.token_decimals, self._here.token_symbol
            wanted, there = format_atoms(bond, decimals), format_atoms(held, decimals)
            raise BadRequest(
                ErrorCode.SESSION_UNDERFUNDED,
                f"the bond of {wanted} {symbol} comes from the tokens {self.wallet.address} holds: {there}",
                hint="What is in your account does not count; take it out: watt wallet withdraw AMOUNT",
            )
        self.wallet.approve(self._here.court, bond)

    def _terms(self, session_id: bytes) -> Open:
        held = self._journal.session(session_id) if self._journal else None
        terms = held.terms if held else None
        terms = terms or self._chain.terms_of(session_id)
        if terms is None:
            raise BadRequest(
                ErrorCode.UNKNOWN_SESSION,
                f"the terms of session {to_hex(session_id)} are not to be found",
                hint="Whoever opened it has them in the journal beside the wallet.",
            )
        return terms


def verdict_salt(signer: Signer, case_id: bytes, challenger: str, round_number: int) -> bytes:
    """What seals a juror's verdict: nothing to keep, for the same wallet finds it again, and nobody else."""
    # The challenger is in it because a case that a stranger lost for showing nothing begins anew, with the
    # same id and round, and the salts of before are public.
    judgement = case_id + from_hex(challenger, 20) + bytes([round_number])
    return keccak(b"wattline verdict\0" + signer.secret + judgement)


def _no_proof(why: str) -> BadRequest:
    hint = "Name two receipts of the same order."
    return BadRequest(ErrorCode.INVALID_REQUEST, f"this proves nothing: {why}", hint=hint)
