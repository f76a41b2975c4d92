"""`--seal`: what a command buys is read by its node and by whoever has the key, and by nobody else."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from tests.cli.conftest import Watt
from tests.client.sealed_market import SealedMarket

WORDS = "what only the node may read"


def ordered(market: SealedMarket) -> list[dict[str, Any]]:
    """Bodies of the orders a market got."""
    return [body for _, _, body in market.calls if "order" in body]


def test_sealed_run_answers_as_a_plain_one_and_the_gateway_reads_nothing(
    watt: Watt, sealed_market: SealedMarket
) -> None:
    assert watt("run", WORDS, "--seal").out == watt("run", WORDS).out == "Hello, world\n"
    sealed, plain = ordered(sealed_market)
    assert WORDS not in json.dumps(sealed)
    assert WORDS in base64.b64decode(plain["payload"]).decode()


def test_rows_of_a_file_are_sealed_too(watt: Watt, sealed_market: SealedMarket, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text(WORDS + "\n")
    assert watt("map", "texts.txt", "--prompt", "{text}", "--yes", "--seal").code == 0
    (order,) = ordered(sealed_market)
    assert "sealed" in order
    assert WORDS not in json.dumps(sealed_market.calls)


def test_receipt_of_a_sealed_job_is_opened_with_the_key_that_bought_it(
    watt: Watt, sealed_market: SealedMarket
) -> None:
    receipt_id = watt("run", WORDS, "--seal", "--json").json["receipt_id"]
    closed = watt("receipt", "get", receipt_id, "--json").json
    assert WORDS.encode() not in base64.b64decode(closed["request_payload"])
    opened = watt("receipt", "get", receipt_id, "--open", "--json").json
    assert WORDS.encode() in base64.b64decode(opened["request_payload"])
    assert opened["fields"] == closed["fields"]
