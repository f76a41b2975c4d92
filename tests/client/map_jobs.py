"""Mapped files for tests, and a death that strikes where it is told to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from marketplace.client import mapping
from marketplace.client.aio import AsyncWattline
from marketplace.client.mapping import MapJob, Statement
from marketplace.client.purchases import Terms
from marketplace.client.recipes import Recipe
from tests.client.fake_market import FakeMarket

CHAT = Recipe(task="chat", model="tiny-chat", fields={"prompt": "Summarise: {text}", "max_tokens": 16})
ONE = Terms(concurrency=1)


class Killed(BaseException):
    """What stands for kill -9: nothing that is written after it counts."""


def source(tmp_path: Path, rows: int = 4) -> Path:
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps({"id": f"r{i}", "text": f"text {i}"}) + "\n" for i in range(rows)))
    return path


def job_of(tmp_path: Path, recipe: Recipe = CHAT, rows: int = 4, **options: Any) -> MapJob:
    return MapJob(source=source(tmp_path, rows), out=tmp_path / "out.jsonl", recipe=recipe, **options)


async def map_all(watt: AsyncWattline, job: MapJob, terms: Terms = ONE, **options: Any) -> Statement:
    return await mapping.run(watt, await mapping.forecast(watt, job), terms, **options)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def paid_by_vouchers(market: FakeMarket) -> int:
    newest = {voucher.session_id: voucher.amount_atoms for voucher in market.vouchers}
    return sum(newest.values())


def dies_at(monkeypatch: pytest.MonkeyPatch, owner: type, method: str, at: int, *, after: bool) -> None:
    """The process dies at the so manieth call of a method, before or after it took effect."""
    original, calls = getattr(owner, method), iter(range(1, 1_000))

    def call(self: Any, *args: Any, **options: Any) -> Any:
        here = next(calls) == at
        if here and not after:
            raise Killed
        result = original(self, *args, **options)
        if here:
            raise Killed
        return result

    monkeypatch.setattr(owner, method, call)
