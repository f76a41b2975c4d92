"""The market's database: the only SQLModel of the marketplace."""
