"""The well-known keys of Hardhat's development chain, and the rule that keeps them there.

They come from the public mnemonic of eleven times "test" and one "junk"; everybody has them, so whatever
they hold on a real chain is lost at once.
"""

from __future__ import annotations

import functools
from typing import Final

from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.signing import Signer

LOCAL_CHAIN_IDS: Final = frozenset({31_337, 1_337})

HARDHAT_KEYS: Final = (
    "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
    "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
    "0x5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a",
    "0x7c852118294e51e653712a81e05800f419141751be58f605c371e15141b007a6",
    "0x47e179ec197488593b187f80a00eb0da91f1b9d0b13f8733639f19c30a34926a",
    "0x8b3a350cf5c34c9194ca85829a2df0ec3153be0318b5e2d3348e872092edffba",
    "0x92db14e403b83dfe3df233f83dfa3a0d7096f21ca9b0d6d6b8d88b2b4ec1564e",
    "0x4bbbf85ce3377467afe5d46f804f221813b2bb87f24d81f60f1fcdbf7cbf4356",
    "0xdbda1821b80551c9d65939329250298aa3472ba22feea921c0cf5d620ea67b97",
    "0x2a871d0798f97d79848a013d4936a73bf4cc922c825d33c1cf7073dff6d409c6",
    "0xf214f2b2cd398c806f84e317254e0f0b801d0643303237d97a22a48e01628897",
    "0x701b615bbdfb9de65240bc28bd21bbc0d996645a3dd57e7b12bc2bdf6f192c82",
    "0xa267530f49f8280200edf313ee7af6b827f2a8bce2897751d06a843f644967b1",
    "0x47c99abed3324a2707c28affff1267e45918ec8c3f20b8aa892e8b065d2942dd",
    "0xc526ee95bf44d8fc405a158bb884d9d1238d99f0612e9f33d006bb0789009aaa",
    "0x8166f546bab6da521a8369cab06c5d2b9e46670292d85c875ee9ec20e84ffb61",
    "0xea6c44ac03bff858b476bba40716402b03e41b8e97e276d1baec7c37d42484a0",
    "0x689af8efa8c651a91ad287602527f3af2fe9f6501a7ac4b061667b5a93e037fd",
    "0xde9be858da4a475276426320d5e9262ecfc3ba460bfac56360bfa6c4c28b4ee0",
    "0xdf57089febbacf7ba0bc227dafbffa9fc08a93fdc68e1e42411a14efcf23656e",
)


def is_local(chain_id: int) -> bool:
    """Whether a chain id is that of a development chain."""
    return chain_id in LOCAL_CHAIN_IDS


def refuse_test_key(address: str, chain_id: int) -> None:
    """Passes any key on a local chain, and none of `HARDHAT_KEYS` elsewhere.

    Raises:
        BadRequest: a well-known key on a chain where money is real.
    """
    if not is_local(chain_id) and address in _test_addresses():
        raise BadRequest(
            ErrorCode.INVALID_REQUEST,
            f"{address} is a well-known test key: everybody can spend from it; use a key of your own",
            address=address,
            chain_id=chain_id,
        )


@functools.cache
def _test_addresses() -> frozenset[str]:
    return frozenset(Signer(key).address for key in HARDHAT_KEYS)
