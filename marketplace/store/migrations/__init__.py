"""Schema of the market's database, by Alembic. `upgrade` is safe to run at every start."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config

from marketplace.store.engine import Store

_HERE = Path(__file__).parent


def upgrade(store: Store) -> None:
    """Brings the database to the newest schema. Idempotent."""
    with store.engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(_HERE))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
