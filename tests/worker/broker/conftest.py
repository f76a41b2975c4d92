from tests.hardhat import chain, hardhat_node  # noqa: F401 - fixtures
