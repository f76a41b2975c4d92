"""From finished work to a receipt that is signed once, and the hint that something is there to deliver."""

from worker.receipts.build import Work, failed_work
from worker.receipts.desk import ReceiptDesk, note_signed
from worker.receipts.leases import Hold, LeaseKeeper, LeaseLapsed
from worker.receipts.slots import Slots, Stopping
from worker.receipts.spool import ChunkSpool

__all__ = [
    "ChunkSpool",
    "Hold",
    "LeaseKeeper",
    "LeaseLapsed",
    "ReceiptDesk",
    "Slots",
    "Stopping",
    "Work",
    "failed_work",
    "note_signed",
]
