from __future__ import annotations

import pytest

from marketplace.chain import calls
from tests.chain.lossy import BUYER
from tests.hardhat import Chain, chain, hardhat_node  # noqa: F401 - fixtures


@pytest.fixture
def funded(chain: Chain) -> Chain:  # noqa: F811 - the fixture above
    """The buyer holds 100 atoms of allowance and tokens, none deposited."""
    here = chain.deployment
    chain.send(BUYER, calls.faucet(here, BUYER.address, 100))
    chain.send(BUYER, calls.approve(here, here.escrow, 100))
    return chain
