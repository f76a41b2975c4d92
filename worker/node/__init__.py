"""The node's daemon: registers, offers, takes orders, delivers receipts, looks after its workers."""
