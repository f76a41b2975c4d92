from tests.hardhat import chain as chain
from tests.hardhat import hardhat_node as hardhat_node
