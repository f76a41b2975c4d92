"""All aggregates of one ledger behind one name."""

from __future__ import annotations

from threading import Lock

from worker.ledger.acceptance import Acceptance
from worker.ledger.base import SCHEMA_VERSION, Database, check_version
from worker.ledger.cancels import Cancels
from worker.ledger.chunks import Chunks
from worker.ledger.claims import Claims
from worker.ledger.jobs import Jobs
from worker.ledger.keyvalues import KeyValues
from worker.ledger.offers import Offers
from worker.ledger.openings import Openings
from worker.ledger.orders import Orders
from worker.ledger.receipts import Receipts
from worker.ledger.seals import Seals
from worker.ledger.sessions import Sessions
from worker.ledger.signing import Signing
from worker.ledger.traces import Traces
from worker.ledger.transactions import Transactions
from worker.ledger.vouchers import Vouchers


class Ledger:
    """The node's database, opened and checked."""

    def __init__(self, url: str) -> None:
        """Creates missing tables.

        Raises:
            BadRequest: the URL cannot be used.
            Broken: the ledger was written by another schema.
        """
        self.database = Database(url)
        self.database.create()
        self.notes = KeyValues(self.database)
        check_version(self.notes.get("schema_version"))
        self.notes.put("schema_version", str(SCHEMA_VERSION))
        turn = Lock()
        self.offers = Offers(self.database)
        self.openings = Openings(self.database)
        self.sessions = Sessions(self.database)
        self.orders = Orders(self.database)
        self.acceptance = Acceptance(self.database, turn)
        self.signing = Signing(self.database)
        self.jobs = Jobs(self.database)
        self.chunks = Chunks(self.database)
        self.cancels = Cancels(self.database)
        self.receipts = Receipts(self.database)
        self.seals = Seals(self.database)
        self.traces = Traces(self.database)
        self.vouchers = Vouchers(self.database, turn)
        self.claims = Claims(self.database)
        self.transactions = Transactions(self.database)

    def close(self) -> None:
        """Closes its connections."""
        self.database.close()
