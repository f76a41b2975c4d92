"""Receipts and payments by page and as a file: stable, complete, and equal to the chain to the atom."""

from __future__ import annotations

import csv
import io
import json

from marketplace.api import export
from marketplace.api.export import Format, Kind, Wish
from marketplace.keeper.clockwork import Clockwork
from marketplace.protocol.money import parse_atoms
from tests.api.test_requests import check_problem
from tests.flow.gateway import gateway
from tests.flow.node import bearer, chat_body, funded
from tests.settlement.test_step import Chain, done_jobs

PRICE = 19


async def get(g, secret, path):
    answer = await g.http.get(path, headers=bearer(secret))
    assert answer.status_code == 200, answer.text
    return answer.json()


async def walk(g, secret, path, name, limit):
    """Every page from the first to the last, as a list of lists of ids."""
    pages, after = [], ""
    while True:
        found = await get(g, secret, f"{path}?limit={limit}{after}")
        pages.append([row[name] for row in found["data"]])
        assert (found["object"], found["last_id"]) == ("list", pages[-1][-1] if pages[-1] else None)
        if not found["has_more"]:
            return pages
        after = f"&after={found['last_id']}"


async def test_pages_of_receipts_have_each_once_though_more_come_meanwhile(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, _):
        await done_jobs(g, secret, 3)
        g.clock.now_ms += 1
        await done_jobs(g, secret, 2)
        pages = await walk(g, secret, "/v1/receipts", "receipt_id", 2)
        assert [len(ids) for ids in pages] == [2, 2, 1]
        ids = [receipt_id for ids in pages for receipt_id in ids]
        assert len(set(ids)) == 5
        g.clock.now_ms += 1
        await done_jobs(g, secret, 1)
        rest = await get(g, secret, f"/v1/receipts?limit=100&after={ids[1]}")
        assert [row["receipt_id"] for row in rest["data"]] == ids[2:]
        newest = await get(g, secret, "/v1/receipts?limit=1")
        assert newest["data"][0]["receipt_id"] not in ids
        assert newest["data"][0]["charged"] == "0.000019"


async def test_receipts_and_payments_are_those_of_the_caller(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, _):
        await done_jobs(g, secret, 1)
        other, _ = await g.new_key()
        for path in ("/v1/receipts", "/v1/payments", "/v1/export?kind=receipts", "/v1/export?kind=payments"):
            assert (await get(g, other, path))["data"] == []
            check_problem(await g.http.get(path), 401, "missing_key")


BAD = [
    "/v1/receipts?limit=0",
    "/v1/receipts?limit=101",
    "/v1/receipts?after=nonsense",
    "/v1/payments?limit=101",
    "/v1/payments?after=pay_1",
    "/v1/payments?after=pay_9999999999_0_0",
    "/v1/export",
    "/v1/export?kind=jobs",
    "/v1/export?kind=receipts&format=xml",
    "/v1/export?kind=receipts&since_ms=-1",
]


async def test_bad_questions_are_told_which_part_is_bad(tmp_path):
    async with gateway(tmp_path) as g:
        secret, _ = await g.new_key()
        for path in BAD:
            check_problem(await g.http.get(path, headers=bearer(secret)), 422, "invalid_request")


async def test_a_cursor_of_a_receipt_that_is_unknown_begins_at_the_newest(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, _):
        await done_jobs(g, secret, 1)
        found = await get(g, secret, "/v1/receipts?after=rcpt_" + "0" * 32)
        assert len(found["data"]) == 1


async def settled_history(g, secret, session):
    """Four jobs: two paid by voucher, one by claim, one given back; then the session closes."""
    ids = await done_jobs(g, secret, 4)
    chain = Chain(g, session)
    chain.add("SessionToppedUp", "0x01", added=500, deposited=10_000_500)
    chain.add("VoucherSettled", "0xaa", throughSeq=1, paid=PRICE)
    chain.add("VoucherSettled", "0xab", throughSeq=1, paid=PRICE)
    chain.add("VoucherSettled", "0xbb", throughSeq=3, paid=3 * PRICE)
    chain.add("SessionClosed", "0xcc", paid=3 * PRICE, returned=10_000_500 - 3 * PRICE)
    await Clockwork(g.market).sweep()
    return ids


async def test_what_receipts_charge_and_payments_pay_is_what_the_chain_says_to_the_atom(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, opened):
        await settled_history(g, secret, opened[1])
        row = g.session(opened[1])
        receipts = await get(g, secret, "/v1/export?kind=receipts")
        payments = await get(g, secret, "/v1/export?kind=payments")
        assert row.paid_atoms == 3 * PRICE
        assert receipts["totals"]["charged"] == {"atoms": str(row.paid_atoms), "amount": "0.000057"}
        assert sum(int(line["charged_atoms"]) for line in receipts["data"]) == row.paid_atoms
        assert [line["phase"] for line in receipts["data"]] == ["settled"] * 3 + ["refunded"]
        moved = {kind: int(total["atoms"]) for kind, total in payments["totals"].items()}
        assert moved["paid"] == row.paid_atoms
        assert moved["opened"] + moved["topped_up"] == row.deposited_atoms
        assert moved["opened"] + moved["topped_up"] == moved["paid"] + moved["returned"]
        assert (receipts["count"], payments["count"]) == (4, 5)
        for line in (*receipts["data"], *payments["data"]):
            assert parse_atoms(line["amount"], 6) == int(line["amount_atoms"])


async def test_csv_and_json_and_pages_say_the_same(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, opened):
        await settled_history(g, secret, opened[1])
        for kind, name in (("receipts", "receipt_id"), ("payments", "payment_id")):
            whole = await get(g, secret, f"/v1/export?kind={kind}")
            answer = await g.http.get(f"/v1/export?kind={kind}&format=csv", headers=bearer(secret))
            assert answer.headers["content-type"] == "text/csv; charset=utf-8"
            assert answer.headers["content-disposition"] == f'attachment; filename="wattline-{kind}.csv"'
            rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
            assert tuple(rows[0]) == tuple(whole["data"][0]) == export.COLUMNS[kind]
            for flat, row in zip(rows, whole["data"], strict=True):
                shown = {key: "" if value is None else str(value) for key, value in row.items()}
                assert flat | {"superseded": None} == shown | {"superseded": None}
            paged = await walk(g, secret, f"/v1/{kind}", name, 2)
            assert sorted(one for ids in paged for one in ids) == sorted(row[name] for row in whole["data"])


async def test_an_empty_export_has_its_head_and_zero_sums(tmp_path):
    async with gateway(tmp_path) as g:
        secret, _ = await g.new_key()
        answer = await g.http.get("/v1/export?kind=payments&format=csv", headers=bearer(secret))
        assert answer.text == ",".join(export.PAYMENT_COLUMNS) + "\r\n"
        found = await get(g, secret, "/v1/export?kind=payments")
        assert found["totals"]["paid"] == {"atoms": "0", "amount": "0.00"}


async def test_since_leaves_out_what_was_before(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, opened):
        await done_jobs(g, secret, 2)
        g.clock.now_ms += 10
        await done_jobs(g, secret, 1)
        found = await get(g, secret, f"/v1/export?kind=receipts&since_ms={g.clock()}")
        assert found["count"] == 1
        Chain(g, opened[1]).add("VoucherSettled", "0xaa", throughSeq=1, paid=PRICE)
        assert (await get(g, secret, "/v1/export?kind=payments&since_block=2"))["count"] == 1


async def test_an_export_reads_in_pieces_over_all_sessions(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_PIECE", 2)
    async with gateway(tmp_path) as g, funded(g, 1, 2) as (secret, _, _):
        for node in (1, 2):
            for _ in range(3):
                body = chat_body(node=node)
                await g.http.post("/v1/chat/completions", json=body, headers=bearer(secret))
        wish = Wish(key=await key_of(g, secret), kind=Kind.RECEIPTS, format=Format.JSON)
        pieces = [piece async for piece in export.written(g.market, wish)]
        assert len(pieces) == 1 + 4 + 1
        assert max(piece.count("receipt_id") for piece in pieces) == 2
        found = json.loads("".join(pieces))
        assert (found["count"], found["totals"]["charged"]["atoms"]) == (6, str(6 * PRICE))


async def key_of(g, secret):
    return (await g.market.key_of(secret)).address


def test_a_name_in_a_spreadsheet_is_no_formula():
    assert export._cell("=HYPERLINK(1)") == "'=HYPERLINK(1)"
    assert export._cell("@x") == "'@x"
    assert export._cell(True) == "true"
    assert export._cell(7) == 7


async def test_a_sessions_receipts_come_whole_or_by_page(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, opened):
        await done_jobs(g, secret, 3)
        path = f"/v1/sessions/{opened[1]}/receipts"
        whole = (await g.http.get(path)).json()
        assert ([row["seq"] for row in whole["data"]], whole["has_more"]) == ([1, 2, 3], False)
        first = (await g.http.get(path + "?limit=2")).json()
        assert ([row["seq"] for row in first["data"]], first["has_more"]) == ([1, 2], True)
        rest = (await g.http.get(f"{path}?limit=2&after={first['last_id']}")).json()
        assert ([row["seq"] for row in rest["data"]], rest["has_more"]) == ([3], False)
