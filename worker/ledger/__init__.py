"""The node's own database: what it accepted, signed and was promised. Truth, together with the chain."""

from worker.ledger.acceptance import Usage
from worker.ledger.base import MAX_COLUMN_ATOMS, Database
from worker.ledger.book import Ledger
from worker.ledger.chunks import HeldChunk, NewChunk
from worker.ledger.offers import HeldOffer
from worker.ledger.orders import HeldOrder, OrderState
from worker.ledger.receipts import HeldReceipt, SignedReceipt
from worker.ledger.sessions import HeldSession
from worker.ledger.vouchers import HeldVoucher, VoucherFacts, VoucherVerdict

__all__ = [
    "MAX_COLUMN_ATOMS",
    "Database",
    "HeldChunk",
    "HeldOffer",
    "HeldOrder",
    "HeldReceipt",
    "HeldSession",
    "HeldVoucher",
    "Ledger",
    "NewChunk",
    "OrderState",
    "SignedReceipt",
    "Usage",
    "VoucherFacts",
    "VoucherVerdict",
]
