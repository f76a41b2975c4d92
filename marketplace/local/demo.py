"""Buys an embedding and a text on a fresh market, and follows the money to the atom."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from marketplace.chain.client import ChainClient, ChainEvent
from marketplace.chain.deployment import Deployment
from marketplace.client import ChatResult, EmbedResult, Wattline, verify_receipt
from marketplace.client.verify import Check, failures
from marketplace.local import treasury
from marketplace.local.commands import CHAT_MODEL, EMBED_MODEL
from marketplace.local.market import Market, Wallet, write_private
from marketplace.local.options import Style, UpOptions
from marketplace.local.screen import Screen
from marketplace.local.up import run_up
from marketplace.protocol.errors import Broken, ErrorCode
from marketplace.protocol.money import format_atoms

TEXTS: Final = ["A market for inference.", "Receipts that anybody can check."]
QUESTION: Final = "In one sentence: why is the sky blue?"
_BUYER: Final = 1
_SETTLE_SECONDS: Final = 120
_POLL_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Money:
    """Who has what at one moment, in atoms.

    Attributes:
        buyer_atoms: account, and what open sessions hold that is not paid.
        earned_atoms: of all nodes, not yet collected or collected already.
    """

    buyer_atoms: int
    earned_atoms: int


def main(arguments: Sequence[str]) -> int:
    """Starts a market, buys, checks, stops; 0 when every check held."""
    parser = argparse.ArgumentParser(prog="scripts/run", description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--models-dir", type=Path, required=True)
    parser.add_argument("--port", type=int)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--keep", action="store_true", help="leave the market running until Ctrl-C")
    given = parser.parse_args(arguments)
    style = Style.JSON if given.json else Style.AUTO
    options = UpOptions(data_dir=given.data_dir, models_dir=given.models_dir, port=given.port, style=style)
    return run_up(options, then=buy, keep=given.keep)


def buy(market: Market, screen: Screen) -> int:
    """The demonstration itself; 0 when every check held."""
    deployment = Deployment.load(Path(market.deployment))
    chain = ChainClient(market.rpc_url, deployment)
    buyer = market.buyers[_BUYER]
    treasury.deposit(chain, buyer, treasury.DEPOSIT_ATOMS)
    before = _money(chain, market, buyer)
    journal = Path(market.deployment).parent / "demo-journal.db"
    with Wattline.open(
        gateway_url=market.gateway_url,
        rpc_url=market.rpc_url,
        deployment=market.deployment,
        key=buyer.private_key,
        journal_path=journal,
    ) as watt:
        screen.begin("embedding", EMBED_MODEL)
        vectors = watt.embed(TEXTS, model=EMBED_MODEL)
        screen.done(_bought(market, vectors, f"{len(vectors.vectors)} x {len(vectors.vectors[0])} numbers"))
        screen.begin("text", CHAT_MODEL)
        text = watt.chat(QUESTION, model=CHAT_MODEL, max_tokens=40, temperature=0)
        screen.done(_bought(market, text, f"{text.units_out} tokens"))
        screen.note(f"“{' '.join(text.text.split())}”")
        results: list[EmbedResult | ChatResult] = [vectors, text]
        bad = [*_check_offline(market, screen, results)]
        settled = _wait_until_paid(chain, market, screen, before, sum(r.cost_atoms for r in results))
        bad += _check_on_chain(watt, screen, results)
    bad += _check_money(chain, market, screen, buyer, before, results)
    _where_next(market, screen, settled)
    return 1 if bad else 0


def _bought(market: Market, result: EmbedResult | ChatResult, what: str) -> str:
    name = next((node.name for node in market.nodes if node.node_id == result.node_id), "a node")
    # 0: nothing on this machine can be read, and nobody declared a figure.
    joules = f" · {format_atoms(result.energy_millijoules, 3)} J" if result.energy_millijoules else ""
    return f"{what} · {name} · {result.cost} {result.currency}{joules}"


def _check_offline(
    market: Market, screen: Screen, results: Sequence[EmbedResult | ChatResult]
) -> list[Check]:
    screen.begin("receipts", "checking without any network")
    folder = Path(market.deployment).parent / "receipts"
    folder.mkdir(exist_ok=True)
    bad: list[Check] = []
    made = 0
    files = []
    for result in results:
        file = folder / f"{result.receipt_id}.json"
        write_private(file, result.bundle.to_json())
        # Read back: what is checked is the file, not what we still remember.
        checks = verify_receipt(json.loads(file.read_text()))
        made += sum(check.ok is True for check in checks)
        bad += failures(checks)
        files.append(file)
    _tell(screen, bad, f"{made} checks of {len(results)} receipts hold, offline")
    for file in files:
        screen.note(f"receipt {file}", receipt=str(file))
    return bad


def _wait_until_paid(
    chain: ChainClient, market: Market, screen: Screen, before: Money, owed_atoms: int
) -> list[ChainEvent]:
    screen.begin("settlement", "the nodes' next settle transaction")
    deadline = time.monotonic() + _SETTLE_SECONDS
    while _earned(chain, market) - before.earned_atoms < owed_atoms:
        if time.monotonic() > deadline:
            detail = f"the nodes settled nothing within {_SETTLE_SECONDS} s"
            raise Broken(ErrorCode.INTERNAL, detail)
        time.sleep(_POLL_SECONDS)
    events = chain.events(chain.deployment.deployed_block, chain.head().number)
    settled = [event for event in events if event.name == "VoucherSettled"]
    screen.done(f"{len(settled)} sessions paid in {len({e.tx_hash for e in settled})} transactions")
    for event in settled:
        tx = f"0x{bytes(event.tx_hash).hex()}"
        screen.note(f"transaction {tx} in block {event.block_number}", transaction=tx)
    return settled


def _check_on_chain(
    watt: Wattline, screen: Screen, results: Sequence[EmbedResult | ChatResult]
) -> list[Check]:
    screen.begin("proof", "contracts, node keys, sessions, payment")
    checks = [check for result in results for check in watt.verify(_settled(watt, result))]
    bad = failures(checks) + [c for c in checks if c.ok is None]
    _tell(screen, bad, f"{len(checks)} checks hold, on-chain too")
    return bad


def _settled(watt: Wattline, result: EmbedResult | ChatResult) -> dict[str, Any]:
    """The gateway's bundle once it names the settlement; its follower is a block or two behind."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while True:
        bundle = watt.receipt(result.receipt_id)
        if bundle.get("settlement") or time.monotonic() > deadline:
            return bundle
        time.sleep(_POLL_SECONDS)


def _check_money(
    chain: ChainClient,
    market: Market,
    screen: Screen,
    buyer: Wallet,
    before: Money,
    results: Sequence[EmbedResult | ChatResult],
) -> list[Check]:
    screen.begin("money", "buyer, nodes, receipts")
    after, paid = _money(chain, market, buyer), sum(result.cost_atoms for result in results)
    down, up = before.buyer_atoms - after.buyer_atoms, after.earned_atoms - before.earned_atoms
    symbol, decimals = chain.deployment.token_symbol, chain.deployment.token_decimals
    amounts = [format_atoms(atoms, decimals) for atoms in (down, up, paid)]
    detail = "buyer -{} · nodes +{} · receipts {}".format(*amounts) + f" {symbol}"
    bad = [] if down == up == paid else [Check("money", ok=False, detail=detail)]
    _tell(screen, bad, f"{detail}, equal to the atom")
    return bad


def _money(chain: ChainClient, market: Market, buyer: Wallet) -> Money:
    events = chain.events(chain.deployment.deployed_block, chain.head().number)
    mine = [e.args for e in events if e.name == "SessionOpened" and e.args["buyer"] == buyer.address]
    held = 0
    for args in mine:
        state = chain.session(bytes.fromhex(args["sessionId"][2:]), args["key"])
        if state is not None and not state.closed:
            held += state.deposited_atoms - state.paid_atoms
    return Money(buyer_atoms=chain.account_atoms(buyer.address) + held, earned_atoms=_earned(chain, market))


def _earned(chain: ChainClient, market: Market) -> int:
    """All that nodes ever earned: what is waiting, and what was collected with its fee."""
    nodes = [chain.node(node.node_id) for node in market.nodes]
    events = chain.events(chain.deployment.deployed_block, chain.head().number)
    collected = sum(int(e.args["amount"]) + int(e.args["fee"]) for e in events if e.name == "Collected")
    return sum(node.earnings_atoms for node in nodes if node) + collected


def _tell(screen: Screen, bad: Sequence[Check], good: str) -> None:
    if not bad:
        screen.done(good)
        return
    screen.failed(f"{len(bad)} checks failed")
    for check in bad:
        screen.problem(f"{check.name}: {check.detail}")


def _where_next(market: Market, screen: Screen, settled: Sequence[ChainEvent]) -> None:
    folder = Path(market.deployment).parent
    screen.note(f"Look next: {folder}/receipts, {folder}/logs, docs/guide.md", settlements=len(settled))
    screen.note("To keep a market running: watt up")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
