from tests.hardhat import chain, hardhat_node  # noqa: F401 - fixtures
from tests.keeper.stores import store  # noqa: F401 - fixture
