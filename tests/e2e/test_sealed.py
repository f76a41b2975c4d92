"""With sealing on, nothing a gateway stores, logs or relays holds prompt or output; without, it all does."""

from __future__ import annotations

import asyncio
import base64
import gzip
import random
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from tokenizers import Tokenizer

from marketplace.chain.devkeys import HARDHAT_KEYS
from marketplace.client import AsyncWattline, BuyerWallet
from marketplace.client.results import EmbedResult, Paid
from marketplace.local.commands import CHAT_MODEL, EMBED_MODEL
from marketplace.protocol.annex import Annex, read_annex
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.trace import pack_tokens, unpack_tokens
from tests.e2e.findings import files_below, found_in, layers_of
from tests.e2e.market import MODELS, MarketUnderTest

KEY: Final = HARDHAT_KEYS[18]  # of the development chain; nobody else uses it
DRAW: Final = random.Random("words that stand nowhere else")  # noqa: S311 - test data
# Where a plain job is found; the log and the broker never hold content, of no job.
HOLDING: Final = ("database", "frames", "http")
Needles = dict[str, list[bytes]]


@dataclass(frozen=True)
class Captured:
    """What a gateway kept and passed on of some jobs, in every layer, and the jobs themselves."""

    places: Mapping[str, list[bytes]]
    bought: list[Paid]
    needles: Needles


def words() -> str:
    """Words no model and no other test says."""
    return " ".join("".join(DRAW.choices("bcdfghjkmnpqrstvwxz", k=11)) for _ in range(4))


def token_ids(model: str, text: str) -> list[int]:
    """A text's ids as the model's own tokenizer has them."""
    found = Tokenizer.from_file(str(MODELS / "models" / model / "tokenizer.json")).encode(text)
    return list(found.ids)


def listed(ids: list[int]) -> list[bytes]:
    """Token ids as they would be written down."""
    written = [between.join(map(str, ids)) for between in (",", ", ", " ")]
    return [form.encode() for form in (*written, pack_tokens(ids).rstrip("="))]


def holds(layers: list[bytes], text: str) -> bool:
    """Whether a name stands there: proof that this place was listened to."""
    return any(text.encode() in layer for layer in layers)


async def buy(market: MarketUnderTest, *, seal: bool) -> tuple[list[Paid], Needles]:
    """A generation, a streamed one, and vectors; and all that would give their content away."""
    place, tap = market.market, market.tap
    assert tap is not None
    needles: Needles = {}
    async with await AsyncWattline.open(
        gateway_url=tap.http_url, rpc_url=place.rpc_url, deployment=place.deployment,
        key=KEY, journal_path=market.data_dir / "sealed-buyer.db", seal=seal,
    ) as watt:  # fmt: skip
        asked = [words() for _ in range(3)]
        # Drawn wildly, or two odd prompts might have the same polite answer.
        ask = {
            "temperature": 2.0,
            "seed": 7 if seal else 8,
            "model": CHAT_MODEL,
            "max_tokens": 12,
            "logprobs": 2,
        }
        whole = await watt.chat(asked[0], **ask)  # type: ignore[call-overload]
        stream = await watt.chat(asked[1], stream=True, **ask)  # type: ignore[call-overload]
        assert "".join([piece async for piece in stream]) == stream.result.text
        vectors = await watt.embed([asked[2]], model=EMBED_MODEL)
        bought = [whole, stream.result, vectors]
        for number, (said, paid) in enumerate(zip(asked, bought, strict=True)):
            needles |= {f"{name} {number}": texts for name, texts in content_of(said, paid).items()}
            # What anybody is shown who knows the job's id, and what its buyer can still have of it.
            await watt.job(paid.job_id)
            assert (await watt.receipt(paid.receipt_id))["request_payload"]
        for paid in (whole, stream.result):
            needles[f"text {paid.job_id}"] = [paid.text.encode()]
    return bought, needles


def content_of(said: str, paid: Paid) -> Needles:
    """Everything of one job from which its prompt or its output could be read, or a guess confirmed."""
    bundle, annex = paid.bundle, read_annex(paid.bundle.annex)
    model = EMBED_MODEL if isinstance(paid, EmbedResult) else CHAT_MODEL
    found: Needles = {
        "prompt": [word.encode() for word in said.split()],
        "prompt ids": listed(token_ids(model, said)[1:9]),
        "salt": [bundle.salt],
        # Of a long chunk only what one page of a database surely holds in one piece.
        "output": [chunk[60:260] for chunk in bundle.chunks if len(chunk) > 90],
    }
    if isinstance(annex, Annex) and annex.token_ids:
        found["output ids"] = [annex.token_ids.encode(), *listed(list(unpack_tokens(annex.token_ids))[:6])]
    return found


def capture(market: MarketUnderTest, *, seal: bool) -> Captured:
    """Buys, and takes what the gateway and its broker have in hand after that."""
    assert market.tap is not None
    market.tap.recording = True
    bought, needles = asyncio.run(buy(market, seal=seal))
    market.tap.recording = False
    frames, http = market.tap.cut()
    return Captured({**kept(market), "frames": layers_of(frames), "http": layers_of(http)}, bought, needles)


def kept(market: MarketUnderTest) -> dict[str, list[bytes]]:
    """The gateway's files and its log, and the nodes' broker."""
    home = market.data_dir
    return {
        "database": layers_of(files_below(home / "gateway")),
        "log": layers_of((home / "logs" / "gateway.log").read_bytes()),
        "broker": layers_of(files_below(home / "broker")),
    }


@pytest.fixture(scope="module")
def funded(market: MarketUnderTest) -> None:
    place = market.market
    funds = BuyerWallet.open(key=KEY, rpc_url=place.rpc_url, deployment=Path(place.deployment))
    funds.faucet("20")
    funds.deposit("20")


@pytest.mark.usefixtures("funded")
def test_gateway_that_relays_sealed_jobs_holds_neither_prompt_nor_output(market: MarketUnderTest) -> None:
    closed = capture(market, seal=True)
    for place, layers in closed.places.items():
        assert found_in(closed.needles, layers) == set(), place
    # The same search finds every kind of them where they are, once nothing is sealed.
    plain = capture(market, seal=False)
    for place in HOLDING:
        missing = set(plain.needles) - found_in(plain.needles, plain.places[place])
        assert {name.rsplit(" ", 1)[0] for name in missing} <= {"prompt ids", "text"}, place
    texts = {name for name in plain.needles if name.startswith("text")}
    assert texts <= found_in(plain.needles, plain.places["http"])
    assert found_in(plain.needles, plain.places["log"]) == set()
    # And both runs were listened to everywhere.
    for run in (closed, plain):
        for paid in run.bought:
            order = to_hex(paid.bundle.receipt.order_hash)
            assert all(holds(plain.places[place], order) for place in ("database", "broker"))
            assert holds(plain.places["log"], paid.job_id)
            assert holds(run.places["frames"], order)
            assert holds(run.places["http"], paid.job_id)
            assert all(check.ok for check in paid.checks)
            assert paid.acknowledged
    assert holds(plain.places["log"], '"level": "debug"')
    # Nothing of the sealed jobs came out later.
    for place, layers in kept(market).items():
        assert found_in(closed.needles, layers) == set(), place


def test_search_finds_what_is_wrapped() -> None:
    needle = 'a prompt, \u00fc and "more" of it'.encode()
    around = b"before" * 9 + needle + b"behind" * 9
    wraps = [
        around, base64.b64encode(b"x" + around), base64.urlsafe_b64encode(b"xy" + around),
        around.hex().encode(), around.decode().encode("utf-16"), zlib.compress(around), gzip.compress(around),
        b'{"z": "' + base64.b64encode(zlib.compress(around)) + b'"}', zlib.compress(around).hex().encode(),
        around[:60] + b"\r\n1f\r\n" + around[60:],
    ]  # fmt: skip
    for wrapped in wraps:
        assert found_in({"it": [needle]}, layers_of(b"\x00\x78\x9c" + wrapped)) == {"it"}, wrapped
        assert found_in({"it": [b"another prompt"]}, layers_of(wrapped)) == set()
