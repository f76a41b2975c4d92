from tests.keeper.stores import store  # noqa: F401 - fixture
