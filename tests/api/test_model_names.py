"""Models by id, by alias of the register, and by a name under which a version is on trial."""

from __future__ import annotations

from collections import Counter

from marketplace.protocol import wire
from marketplace.protocol.hexes import to_hex
from marketplace.store import aliases
from tests.flow.gateway import gateway
from tests.flow.node import CHAT_MODEL, bearer, chat_body, funded
from tests.store.test_aliases import facts

TRIAL = b"\x77" * 32


def name(g, alias, model_id, **changes):
    with g.store.transaction() as tx:
        aliases.put(tx, facts(alias, to_hex(model_id), **changes))


async def ask(g, secret, model):
    return await g.http.post("/v1/chat/completions", json=chat_body(model=model), headers=bearer(secret))


async def test_buyer_asks_by_id_or_by_an_alias_of_the_register(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, _):
        name(g, "smol@1.0", CHAT_MODEL, fixed=True)
        name(g, "other@1.0", TRIAL)
        for model in ("smol@1.0", to_hex(CHAT_MODEL), "tiny"):
            assert (await ask(g, secret, model)).status_code == 200, model
        # What the register names and nobody offers is not on offer, and neither is what it does not name.
        for model in ("other@1.0", "smol@2.0", "smol@latest", "smol"):
            assert (await ask(g, secret, model)).json()["code"] == "unknown_model", model
        name(g, "smol@latest", CHAT_MODEL)
        assert (await ask(g, secret, "smol")).status_code == 200


async def test_listing_shows_aliases_and_who_published_them(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1):
        name(g, "smol@1.0", CHAT_MODEL, fixed=True)
        rows = {row["id"]: row for row in (await g.http.get("/v1/models")).json()["data"]}
        shown = [{"alias": "smol@1.0", "publisher": "0xp", "fixed": True}]
        assert (rows["tiny"]["aliases"], rows["mini"]["aliases"]) == (shown, [])
        assert (await g.http.get("/v1/models/smol@1.0")).json() == rows["tiny"]


async def test_quotes_by_name_are_shared_out_and_the_same_question_gets_the_same_version(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (_, nodes, _):
        node = nodes[1]
        ids = (CHAT_MODEL, TRIAL)
        models = [
            wire.OfferedModel(
                model_id=model_id,
                name="tiny",
                task="chat",
                context_tokens=512,
                loaded=True,
                canary_bps=5_000 if model_id == TRIAL else 0,
            )
            for model_id in ids
        ]
        offers = [node.sign(node.offer_of(model_id)) for model_id in ids]
        await node.send(wire.Offers(offers=offers, models=models))

        async def quoted(model, text):
            body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 4}
            return (await g.http.post("/v1/quotes", json=body)).json().get("model_id")

        while await quoted(to_hex(TRIAL), "x") is None:
            await g.http.get("/livez")
        questions = [f"question {number}" for number in range(24)]
        drawn = [await quoted("tiny", text) for text in questions]
        assert drawn == [await quoted("tiny", text) for text in questions]
        counts = Counter(drawn)
        assert set(counts) == {to_hex(CHAT_MODEL), to_hex(TRIAL)}
        assert min(counts.values()) >= 4
        assert {await quoted(to_hex(CHAT_MODEL), text) for text in questions} == {to_hex(CHAT_MODEL)}
