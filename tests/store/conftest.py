from tests.keeper.stores import empty_store, store  # noqa: F401 - fixtures
