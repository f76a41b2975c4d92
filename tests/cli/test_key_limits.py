"""Keys held to models and budgets, as people type them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Watt
from tests.client.courtroom import Courtroom
from tests.client.fake_market import FakeMarket


def test_bearer_key_is_made_with_models_budget_and_an_end(watt: Watt, market: FakeMarket) -> None:
    made = watt("keys", "bearer", "--models", "tiny-*, bge", "--budget", "0.80", "--amount", "0.5", "--json")
    assert made.code == 0
    (body,) = [body for method, path, body in market.calls if (method, path) == ("POST", "/v1/keys")]
    assert (body["models"], body["budget"]) == (["tiny-*", "bge"], "0.80")
    assert body["expires_at"] > 1_700_000_000


@pytest.mark.parametrize("models", ["x" * 129, ",".join("x" * 33)])
def test_models_that_nobody_can_keep_are_refused(watt: Watt, market: FakeMarket, models: str) -> None:
    assert watt("keys", "bearer", "--models", models).code == 2
    assert watt("keys", "create", "agent", "--cap", 1, "--models", models).code == 2


def test_bearer_key_is_shown_with_its_forecast_and_revoked(watt: Watt, market: FakeMarket) -> None:
    shown = watt("keys", "bearer-show", "--json").json
    assert (shown["models"], shown["left_atoms"]) == (["tiny-*"], "400000")
    words = watt("keys", "bearer-show").out
    assert "tiny-*" in words
    assert "2 d 0 h at this rate" in words
    assert watt("keys", "bearer-revoke", "--json").json == {"key": shown["address"], "revoked": True}
    assert ("DELETE", "/v1/keys/me", {}) in market.calls


@pytest.mark.chain
def test_granted_key_shows_caps_models_sessions_and_how_long_it_lasts(
    watt: Watt, room: Courtroom, tmp_path: Path
) -> None:
    made = watt(
        *("keys", "create", "research-bot", "--cap", 5, "--per-session", "0.50", "--for", "24h"),
        *("--nodes", room.node_id, "--models", "tiny-*", "--json"),
    ).json
    assert made["models"] == ["tiny-*"]
    grant = json.loads(Path(made["key_file"]).with_name("research-bot.grant.json").read_text())
    assert grant["models"] == ["tiny-*"]
    idle = watt("keys", "show", "research-bot", "--json").json
    assert (idle["spent_last_day_atoms"], idle["empty_in_seconds"], idle["sessions"]) == ("0", None, [])
    assert "nothing was spent" in watt("keys", "show", "research-bot").out
    room.chain.node.set_balance(made["key"], 10**18)
    opened = watt(
        *("session", "open", "--node", room.node_id, "--amount", "0.50", "--direct"),
        *("--wallet", made["key_file"], "--json"),
    ).json
    shown = watt("keys", "show", made["key"], "--json").json
    assert (shown["name"], shown["live"], shown["left_atoms"]) == ("research-bot", True, "4500000")
    assert (shown["models"], shown["nodes"]) == (["tiny-*"], [room.node_id])
    assert (shown["spent_last_day_atoms"], shown["empty_in_seconds"]) == ("500000", None)
    assert (shown["forecast"]["purchases_last_day"], shown["forecast"]["based_on_seconds"]) == (1, None)
    assert [(s["session_id"], s["left_atoms"]) for s in shown["sessions"]] == [
        (opened["session_id"], "500000")
    ]
    assert "too little was bought to tell" in watt("keys", "show", "research-bot").out
    assert watt("keys", "revoke", "research-bot").code == 0
    refused = watt("run", "hi", "--wallet", made["key_file"], "--gateway", "http://127.0.0.1:1")
    assert (refused.code, "revoked" in refused.err) == (1, True)
    assert watt("keys", "show", "nobody").code == 3
