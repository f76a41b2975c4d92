"""Money of somebody without an account: a quote with a receiver of its own, its payment, and what comes back.

Nothing is kept of a quote that is not paid: whoever pays sends back its salt, and the rest follows from the
request, the offer and the gateway's secret. See docs/decisions/0021-x402-receivers.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from marketplace.chain import till
from marketplace.chain.calls import Call
from marketplace.chain.deployment import Deployment
from marketplace.chain.till import Paid
from marketplace.funding import rules
from marketplace.funding.vault import Vault
from marketplace.protocol import merkle
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.hexes import ZERO_ADDRESS, from_hex, keccak, to_hex
from marketplace.protocol.quotes import Payer, Quote
from marketplace.protocol.signing import BadSignature, Signer, signer_of
from marketplace.protocol.tokens import TokenDomain, TransferWithAuthorization
from marketplace.store import events as chain_log
from marketplace.store import outbox, payments, sessions, transactions
from marketplace.store.outbox import OutboxEntry, OutboxState, Wanted
from marketplace.store.tables import KeyRow, PaymentRow, Tx

LABEL: Final = "x402"
# Between the last second to pay and the deadline of the job: until a transaction is seen and the job placed.
_SLACK_SECONDS: Final = 15
# After this long without a session no transaction of ours can open it any more, reorganised or not.
_LAG_SECONDS: Final = 600
_LAST_LOOK_SECONDS: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted402:
    """One request at one offer: everything that its quote is made of but time and salt."""

    node_id: int
    offer_hash: str
    ceiling_atoms: int
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a payment stands: `tx_hash` took it; `problem` says why nothing was taken."""

    is_open: bool
    tx_hash: str | None = None
    problem: str | None = None

    @property
    def is_used(self) -> bool:
        """Whether the authorization was used by somebody else: the keeper looks whether tokens came."""
        return _is_used(self.problem)


class Receivers:
    """What a gateway takes such payments with.

    Args:
        token: EIP-712 domain of the token, which payers sign for.
        window_seconds: from the quote to the last second to pay.
        work_seconds: longest a job may take.
    """

    def __init__(
        self,
        deployment: Deployment,
        vault: Vault,
        token: TokenDomain,
        *,
        window_seconds: int,
        work_seconds: int,
    ) -> None:
        self.deployment, self.token, self.window_seconds = deployment, token, window_seconds
        self._vault = vault
        self._session_seconds = work_seconds + _SLACK_SECONDS + rules.EXPIRY_MARGIN_MS // 1000

    def key(self, quote: Quote) -> Signer:
        """Key of a quote, whatever key it names; one session and no other is ever opened with it."""
        return Signer(self._vault.derive("x402 key", replace(quote, key=ZERO_ADDRESS).struct_hash))

    def order_salt(self, salt: bytes) -> bytes:
        """Salt of the order under the quote; it keeps the request on the chain unreadable."""
        return self._vault.derive("x402 order", salt)

    def seed(self, salt: bytes) -> int:
        """Seed of a request that names none, the same whenever the request is sent again."""
        return int.from_bytes(self._vault.derive("x402 seed", salt)[:8], "big")

    def quote(self, wanted: Wanted402, salt: bytes, pay_before: int) -> Quote:
        """The quote for a request; the same arguments give the same receiver."""
        keyless = Quote(
            node_id=wanted.node_id,
            offer_hash=from_hex(wanted.offer_hash, 32),
            request_hash=merkle.request_hash(self.order_salt(salt), wanted.payload),
            key=ZERO_ADDRESS,
            amount_atoms=wanted.ceiling_atoms,
            pay_before=pay_before,
            expires_at=pay_before + self._session_seconds,
            salt=salt,
        )
        return replace(keyless, key=self.key(keyless).address)

    def receiver(self, quote: Quote) -> str:
        """Where a quote is paid to."""
        return till.receiver_of(self.deployment, quote)

    def refund_at(self, quote: Quote) -> int:
        """Unix seconds from which anybody can send the rest of its session back."""
        return quote.expires_at + self.deployment.grace_seconds

    def naming(self, quote: Quote, paid: Paid) -> bytes:
        """The quote key's word that it was this payment that arrived."""
        word = Payer(quote_hash=quote.struct_hash, payer=paid.payer, nonce=paid.nonce)
        return self.key(quote).sign(word, self.deployment.domain)

    def seal(self, signer: Signer) -> bytes:
        """Sealed form of a key."""
        return self._vault.seal(signer)

    def check(self, quote: Quote, paid: Paid, now_at: int) -> None:
        """Whether the till would take this payment.

        Raises:
            BadRequest: the first rule it breaks; nothing was taken.
        """
        signed = _message(self.receiver(quote), paid)
        if not now_at < quote.pay_before <= now_at + self.window_seconds:
            raise _refused("the quote has expired")
        if paid.value_atoms != quote.amount_atoms:
            raise _refused(f"{paid.value_atoms} atoms were signed, the price is {quote.amount_atoms}")
        if not paid.valid_after < now_at < paid.valid_before:
            raise _refused("the authorization is not valid now")
        try:
            signer = signer_of(signed, self.token, paid.signature)
        except BadSignature as error:
            raise _refused(f"the authorization's signature is not readable: {error}") from error
        if signer != paid.payer:
            raise _refused(f"the authorization must be signed by {paid.payer}, was by {signer}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Called:
    """The call a payment is for: its model, a digest of it, and what its payer calls it."""

    model_id: str
    fingerprint: str
    identifier: str | None = None


def keep(tx: Tx, receivers: Receivers, quote: Quote, paid: Paid, called: Called, now_ms: int) -> PaymentRow:
    """Keeps a checked payment and the key of its quote; `send` takes it. Raises `LostRace`."""
    signer = receivers.key(quote)
    secret = to_hex(keccak(b"wattline x402 key\0" + quote.struct_hash))
    kept = KeyRow(
        address=signer.address,
        secret_hash=secret,
        sealed_key=receivers.seal(signer),
        label=LABEL,
        created_at_ms=now_ms,
    )
    row = _row(receivers, quote, paid, called, now_ms)
    payments.add(tx, row, kept)
    return row


def send(tx: Tx, receivers: Receivers, row: PaymentRow, now_ms: int) -> None:
    """Puts a kept payment into the outbox, unless its session is there. Idempotent."""
    if sessions.find(tx, row.session_id) is None:
        call = till.pay(receivers.deployment, Quote.decode(row.quote), paid_of(row))
        outbox.ask(tx, _wanted(_intent("pay", row.receiver), call), now_ms=now_ms)


def paid_of(row: PaymentRow) -> Paid:
    """The payment that is kept."""
    signed = TransferWithAuthorization.decode(row.message)
    return Paid(
        payer=signed.payer,
        value_atoms=signed.value_atoms,
        valid_after=signed.valid_after,
        valid_before=signed.valid_before,
        nonce=signed.nonce,
        signature=row.signature,
    )


def identifier_of(payer: str, name: str) -> str:
    """Digest of a payer and the payer's own name for a call."""
    return keccak(f"x402\0{payer}\0{name}".encode()).hex()


def is_same(row: PaymentRow, paid: Paid) -> bool:
    """Whether this is the payment that is kept, to the byte."""
    return row.message == _message(row.receiver, paid).encode() and row.signature == paid.signature


def standing(tx: Tx, row: PaymentRow) -> Standing:
    """Where a payment stands."""
    session = sessions.find(tx, row.session_id)
    record = transactions.transaction_of(tx, _intent("pay", row.receiver))
    tx_hash = to_hex(record.tx_hash) if record else None
    if session is not None and session.deposited_atoms:
        return Standing(is_open=True, tx_hash=tx_hash)
    return Standing(is_open=False, tx_hash=tx_hash, problem=_problem(tx, row))


def suspects(tx: Tx, now_at: int, limit: int = 100) -> list[PaymentRow]:
    """Payments that could not be taken because somebody may have sent their authorization before us.

    Whatever the reason was, each is looked at once more when its quote has expired.
    """
    return [row for row in payments.undone(tx, limit) if _is_suspect(tx, row, now_at)]


def ask_pushed(tx: Tx, receivers: Receivers, row: PaymentRow, now_ms: int) -> None:
    """Tokens of a payment are in its receiver: opens the session in time, else returns them. Idempotent."""
    quote, paid = Quote.decode(row.quote), paid_of(row)
    word = receivers.naming(quote, paid)
    if now_ms // 1000 < quote.pay_before:
        what, call = "pushed", till.pay_pushed(receivers.deployment, quote, paid, word)
    else:
        what, call = "recover", till.recover(receivers.deployment, quote, paid, word)
    outbox.ask(tx, _wanted(_intent(what, row.receiver), call), now_ms=now_ms)


def return_ended(tx: Tx, receivers: Receivers, now_at: int, limit: int = 100) -> int:
    """Asks for refunds that are due; gives how many. Idempotent.

    `now_at` is Unix seconds. Whoever sends the refund, the till pays it to nobody but the payer.
    """
    newest = chain_log.cursor(tx)
    if newest is None:
        return 0
    # A chain whose clock runs ahead of ours ends sessions by its own.
    time_at = max(now_at, newest.timestamp)
    asked = 0
    for row in payments.undone(tx, limit):
        entry = outbox.find(tx, _intent("refund", row.receiver, row.refunds))
        if entry is not None and not _is_over(tx, entry, newest.number):
            continue
        if entry is not None:
            payments.count_refund(tx, row)
        asked += _return_one(tx, receivers, row, time_at)
    return asked


def _return_one(tx: Tx, receivers: Receivers, row: PaymentRow, time_at: int) -> bool:
    session = sessions.find(tx, row.session_id)
    account = sessions.account(tx, row.receiver)
    if session is None:
        if time_at > row.due_at + _LAG_SECONDS:
            payments.end(tx, row)
        return False
    left = account.balance_atoms if account else 0
    if session.closed and not left:
        if not session.claimed_atoms:
            payments.end(tx, row)
        return False
    if not session.closed and time_at < row.due_at:
        return False
    call = till.refund(receivers.deployment, Quote.decode(row.quote))
    outbox.ask(tx, _wanted(_intent("refund", row.receiver, row.refunds), call), now_ms=time_at * 1000)
    return True


def _is_over(tx: Tx, entry: OutboxEntry, folded_to: int) -> bool:
    """Whether all that a transaction did is in the store."""
    record = transactions.transaction_of(tx, entry.wanted.intent)
    ended = entry.state in (OutboxState.CONFIRMED, OutboxState.FAILED)
    return ended and (record is None or (record.block_number or 0) <= folded_to)


def _problem(tx: Tx, row: PaymentRow) -> str | None:
    entry = outbox.find(tx, _intent("pay", row.receiver))
    if entry is None or entry.state is not OutboxState.FAILED:
        return None
    return entry.problem or "refused"


def _is_suspect(tx: Tx, row: PaymentRow, now_at: int) -> bool:
    problem, end = _problem(tx, row), Quote.decode(row.quote).pay_before
    return _is_used(problem) or (problem is not None and end <= now_at < end + _LAST_LOOK_SECONDS)


def _is_used(problem: str | None) -> bool:
    # OpenZeppelin's token says ERC3009UsedAuthorization, Circle's "authorization is used or canceled".
    return problem is not None and "used" in problem.lower()


def _row(receivers: Receivers, quote: Quote, paid: Paid, called: Called, now_ms: int) -> PaymentRow:
    receiver = receivers.receiver(quote)
    return PaymentRow(
        receiver=receiver,
        session_id=to_hex(quote.terms(receiver).digest(receivers.deployment.domain)),
        key=quote.key,
        model_id=called.model_id,
        quote=quote.encode(),
        payer=paid.payer,
        message=_message(receiver, paid).encode(),
        signature=paid.signature,
        identifier=called.identifier,
        fingerprint=called.fingerprint,
        asked_at_ms=now_ms,
        due_at=receivers.refund_at(quote),
    )


def _message(receiver: str, paid: Paid) -> TransferWithAuthorization:
    return TransferWithAuthorization(
        payer=paid.payer,
        to=receiver,
        value_atoms=paid.value_atoms,
        valid_after=paid.valid_after,
        valid_before=paid.valid_before,
        nonce=paid.nonce,
    )


def _intent(what: str, receiver: str, number: int | None = None) -> str:
    return f"x402-{what}:{receiver}" + ("" if number is None else f":{number}")


def _wanted(intent: str, call: Call) -> Wanted:
    return Wanted(intent=intent, contract=call.to or "", data=call.data, what=call.what)


def _refused(detail: str) -> BadRequest:
    return BadRequest(ErrorCode.PAYMENT_REQUIRED, detail)
