"""The node's own database: what it accepted, signed and was promised. Truth, together with the chain."""

from worker.ledger.acceptance import Usage
from worker.ledger.base import MAX_COLUMN_ATOMS, Database, DatabaseFailed
from worker.ledger.book import Ledger
from worker.ledger.chunks import HeldChunk, NewChunk, News
from worker.ledger.claims import ClaimStage, HeldClaim, UnpaidJob, UnpaidSession
from worker.ledger.jobs import TakenUp
from worker.ledger.offers import HeldOffer
from worker.ledger.openings import HeldOpening
from worker.ledger.orders import HeldOrder, OrderState
from worker.ledger.receipts import HeldReceipt, SignedReceipt
from worker.ledger.sessions import HeldSession
from worker.ledger.signing import MakeReceipt
from worker.ledger.vouchers import HeldVoucher, VoucherFacts, VoucherVerdict

__all__ = [
    "MAX_COLUMN_ATOMS",
    "ClaimStage",
    "Database",
    "DatabaseFailed",
    "HeldChunk",
    "HeldClaim",
    "HeldOffer",
    "HeldOpening",
    "HeldOrder",
    "HeldReceipt",
    "HeldSession",
    "HeldVoucher",
    "Ledger",
    "MakeReceipt",
    "NewChunk",
    "News",
    "OrderState",
    "SignedReceipt",
    "TakenUp",
    "UnpaidJob",
    "UnpaidSession",
    "Usage",
    "VoucherFacts",
    "VoucherVerdict",
]
