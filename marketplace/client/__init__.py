"""The buyer's SDK: quotes, sessions, signed orders, verified receipts. Sees only `protocol` and `chain`.

    from marketplace.client import Wattline

    with Wattline.open(gateway_url=…, rpc_url=…, deployment=…, key="0x…") as watt:
        print(watt.chat("Say hello", model="smollm2-135m", max_cost="0.001").text)

Names load on first use, so that importing this package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from marketplace.client.aio import AsyncWattline as AsyncWattline
    from marketplace.client.callbook import Spending as Spending
    from marketplace.client.disputes import Disputes as Disputes
    from marketplace.client.keys import BuyerKeys as BuyerKeys
    from marketplace.client.payer import Grant as Grant
    from marketplace.client.problems import GatewayProblem as GatewayProblem
    from marketplace.client.problems import GatewayTrouble as GatewayTrouble
    from marketplace.client.results import ChatResult as ChatResult
    from marketplace.client.results import EmbedResult as EmbedResult
    from marketplace.client.results import TaskResult as TaskResult
    from marketplace.client.spending import OwnSessions as OwnSessions
    from marketplace.client.sync import Wattline as Wattline
    from marketplace.client.verify import Check as Check
    from marketplace.client.verify import verify_receipt as verify_receipt
    from marketplace.client.wallet import BuyerWallet as BuyerWallet

_HOMES: Final = {
    "AsyncWattline": "aio",
    "BuyerKeys": "keys",
    "BuyerWallet": "wallet",
    "ChatResult": "results",
    "Check": "verify",
    "Disputes": "disputes",
    "EmbedResult": "results",
    "GatewayProblem": "problems",
    "GatewayTrouble": "problems",
    "Grant": "payer",
    "OwnSessions": "spending",
    "Spending": "callbook",
    "TaskResult": "results",
    "Wattline": "sync",
    "verify_receipt": "verify",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Loads the module behind a public name."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
