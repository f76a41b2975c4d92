from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from marketplace.client import flows
from marketplace.client.aio import AsyncWattline
from marketplace.client.flow_file import FlowErrors, read_flow
from marketplace.client.flows import FlowJob, FlowStatement, given_inputs
from marketplace.client.purchases import Terms
from marketplace.client.verify import passed, verify_receipt
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.hexes import to_hex
from tests.client.fake_market import FakeMarket
from tests.client.fakes import MODEL_ID
from tests.client.map_jobs import Killed, dies_at, lines, paid_by_vouchers

FLOW = """
name = "summarise"
cap = "0.01"

[inputs]
texts = []
question = "Mood"

[[steps]]
id = "summarise"
task = "chat"
model = "tiny-chat"
for_each = "{moods.results}"
input = { prompt = "Summarise this {item.label} text: {item.input}", max_tokens = 16 }

[[steps]]
id = "vectors"
task = "embed"
model = "tiny-chat"
input = { input = "{texts}" }

[[steps]]
id = "moods"
task = "classify"
model = "tiny-chat"
input = { input = "{texts}", labels = ["bad", "good"], question = "{question}" }

[[steps]]
id = "best"
task = "rerank"
model = "tiny-chat"
input = { query = "the best", documents = "{summarise.text}" }
"""
TEXTS = ["one text", "another text"]


def flow_of(tmp_path: Path, text: str = FLOW) -> Path:
    path = tmp_path / "f.toml"
    path.write_text(text)
    return path


def job_of(tmp_path: Path, text: str = FLOW, **inputs: Any) -> FlowJob:
    flow = read_flow(flow_of(tmp_path, text))
    values = given_inputs(flow, {"texts": TEXTS, **inputs})
    return FlowJob(flow=flow, inputs=values, out=tmp_path / "f.out.json")


async def run(watt: AsyncWattline, job: FlowJob, **terms: Any) -> FlowStatement:
    return await flows.run(watt, await flows.forecast(watt, job), Terms(**terms))


async def test_answers_flow_from_step_to_step(
    watt: AsyncWattline, market: FakeMarket, tmp_path: Path
) -> None:
    statement = await run(watt, job_of(tmp_path))
    assert [(r.step.id, r.state, r.jobs) for r in statement.steps if r.step.id != "vectors"] == [
        ("moods", "done", 1),
        ("summarise", "done", 2),
        ("best", "done", 1),
    ]
    outputs = json.loads((tmp_path / "f.out.json").read_text())["outputs"]
    assert outputs["vectors"]["vectors"] == [[1.0, 2.0], [1.0, 2.0]]
    assert outputs["moods"]["labels"] == ["good", "good"]
    assert outputs["summarise"]["text"] == ["Hello, world", "Hello, world"]
    assert outputs["summarise"]["items"][1]["item"]["input"] == "another text"
    assert outputs["best"]["best"] == "Hello, world"
    asked = [b["messages"][0]["content"] for _, p, b in market.calls if p == "/v1/quotes" and "messages" in b]
    assert "Summarise this good text: one text" in asked


async def test_flow_statement_is_the_sum_of_its_receipts_and_of_the_vouchers(
    watt: AsyncWattline, market: FakeMarket, tmp_path: Path
) -> None:
    statement = await run(watt, job_of(tmp_path))
    bundles = lines(statement.receipts)
    assert len(bundles) == statement.tally.jobs == 5
    assert all(passed(verify_receipt(bundle)) for bundle in bundles)
    paid = sum(int(bundle["fields"]["amount"]) for bundle in bundles)
    assert paid == statement.tally.paid_atoms == paid_by_vouchers(market)
    assert sum(report.tally.paid_atoms for report in statement.steps) == paid


async def test_forecast_covers_what_a_flow_costs_and_charges_nothing(
    watt: AsyncWattline, market: FakeMarket, tmp_path: Path
) -> None:
    job = job_of(tmp_path)
    plan = await flows.forecast(watt, job)
    assert (market.orders, job.state.exists()) == ([], False)
    assert [(each.step.id, each.jobs) for each in plan.steps if each.step.id != "vectors"] == [
        ("moods", 1),
        ("summarise", 2),
        ("best", 1),
    ]
    statement = await flows.run(watt, plan, Terms())
    assert statement.tally.paid_atoms <= plan.most_atoms
    assert sum(order.max_amount_atoms for order in market.orders) <= plan.most_atoms


async def test_flow_again_pays_nothing(watt: AsyncWattline, market: FakeMarket, tmp_path: Path) -> None:
    first = await run(watt, job_of(tmp_path))
    plan = await flows.forecast(watt, job_of(tmp_path))
    assert (plan.most_atoms, {each.sellers for each in plan.steps}) == (0, {None})
    second = await flows.run(watt, plan, Terms())
    assert (second.tally, second.outputs, len(market.orders)) == (first.tally, first.outputs, 5)


async def test_changed_step_is_bought_again_with_what_it_changes_and_nothing_else(
    watt: AsyncWattline, market: FakeMarket, tmp_path: Path
) -> None:
    await run(watt, job_of(tmp_path))
    changed = FLOW.replace("Summarise this", "Sum up this")
    statement = await run(watt, job_of(tmp_path, changed))
    # Two summaries anew; they say the same, so that ranking them is the question it was.
    assert len(market.orders) == 7
    assert statement.failed == 0
    assert statement.tally.jobs == 7
    await run(watt, job_of(tmp_path, changed, question="Tone"))
    # The labels come out the same, so that nothing behind them is asked anew.
    assert len(market.orders) == 8


async def test_step_that_names_another_model_gets_that_one(
    watt: AsyncWattline, market: FakeMarket, tmp_path: Path
) -> None:
    await run(watt, job_of(tmp_path))
    market.names.add("other")
    market.calls.clear()
    changed = FLOW.replace('task = "rerank"\nmodel = "tiny-chat"', 'task = "rerank"\nmodel = "other"')
    assert (await run(watt, job_of(tmp_path, changed))).failed == 0
    quoted = [body["model"] for _, path, body in market.calls if path == "/v1/quotes"]
    assert quoted == ["other", to_hex(MODEL_ID)]
    assert len(market.orders) == 6


async def test_cap_holds_for_the_whole_and_the_rest_can_be_done_later(
    watt: AsyncWattline, market: FakeMarket, tmp_path: Path
) -> None:
    plan = await flows.forecast(watt, job_of(tmp_path))
    first = sum(each.most_atoms for each in plan.steps if each.step.id in ("vectors", "moods"))
    capped = await flows.run(watt, plan, Terms(cap_atoms=first + 5))
    assert capped.halted_by is not None
    assert capped.halted_by.code is ErrorCode.PRICE_ABOVE_MAX
    assert capped.tally.paid_atoms <= first + 5
    assert {r.step.id: r.state for r in capped.steps}["best"] == "left"
    assert (await run(watt, job_of(tmp_path))).failed == 0
    assert len(market.orders) == 5


async def test_failed_step_keeps_what_does_not_need_it(
    watt: AsyncWattline, market: FakeMarket, tmp_path: Path
) -> None:
    job = job_of(tmp_path)
    plan = await flows.forecast(watt, job)
    original = market.order

    def order(request: Any, body: Any) -> Any:
        import base64

        failing = b'"task":"classify"' in base64.b64decode(body["payload"])
        for node in market.nodes.values():
            node.behaviour = "fail" if failing else "ok"
        return original(request, body)

    market.order = order  # type: ignore[method-assign]
    statement = await flows.run(watt, plan, Terms(retries=1))
    states = {r.step.id: r.state for r in statement.steps}
    assert states == {"vectors": "done", "moods": "failed", "summarise": "left", "best": "left"}
    (problem,) = [p for r in statement.steps for p in r.problems]
    assert (problem["job"], problem["code"], problem["charged"]) == ("moods", "node_failed", False)
    market.order = original  # type: ignore[method-assign]
    for node in market.nodes.values():
        node.behaviour = "ok"
    assert (await run(watt, job)).failed == 0


@pytest.mark.parametrize("at", [1, 3])
async def test_flow_that_died_goes_on_and_pays_each_job_once(
    watt: AsyncWattline, market: FakeMarket, tmp_path: Path, at: int
) -> None:
    job = job_of(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        dies_at(patch, FakeMarket, "order", at, after=True)
        with pytest.raises(BaseException) as caught:  # noqa: PT011 - a task group wraps what killed it
            await run(watt, job)
        assert caught.group_contains(Killed)
    assert (await run(watt, job)).failed == 0
    assert len({b.receipt.order_hash for b in market.bundles.values()}) == 5


async def test_answer_that_makes_an_impossible_request_fails_its_step_only(
    watt: AsyncWattline, tmp_path: Path
) -> None:
    text = FLOW.replace('documents = "{summarise.text}"', 'documents = "{summarise.finish}", query2 = "x"')
    with pytest.raises(FlowErrors, match="no field 'query2'"):
        read_flow(flow_of(tmp_path, text))
    labels = FLOW.replace('labels = ["bad", "good"]', 'labels = "{draft.text}"').replace(
        '[[steps]]\nid = "vectors"',
        '[[steps]]\nid = "draft"\ntask = "chat"\nmodel = "tiny-chat"\nfor_each = ["a", "b"]\n'
        'input = { prompt = "{item}", max_tokens = 1 }\n\n[[steps]]\nid = "vectors"',
    )
    # Both drafts say the same, and a label may not be named twice; no forecast can know that.
    with pytest.raises(FlowErrors, match="named twice"):
        read_flow(flow_of(tmp_path, labels))


STEP = '[[steps]]\nid = "a"\ntask = "chat"\nmodel = "m"\ninput = { prompt = "x" }\n'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "it has no"),
        ("oops = 1\n" + STEP, "unknown 'oops'"),
        ("steps = 3", "steps are"),
        ("cap = 3\n" + STEP, "cap and name are text"),
        (STEP + STEP, "two steps are called 'a'"),
        ('[inputs]\na = "x"\n' + STEP, "'a' is an input and a step"),
        (STEP.replace('"a"', '"item"'), "'item' is no name"),
        (STEP.replace('id = "a"\n', ""), "None is no name"),
        (STEP.replace('"chat"', '"sing"'), "task is one of"),
        (STEP.replace('model = "m"\n', ""), "names no model"),
        (STEP.replace('{ prompt = "x" }', '"x"'), "input is a table"),
        (STEP + "for_each = 3\n", "for_each is a list"),
        (STEP + "timeout_seconds = 0\n", "timeout_seconds"),
        (STEP + "while = true\n", "unknown 'while'"),
        (STEP.replace('"x"', '"{b.text}"'), "which is none of a"),
        (STEP.replace('"x"', '"{"'), "cannot be filled in"),
        (STEP.replace('"x"', '"{item}"'), "which is none of a"),
        (STEP.replace('"x"', '"{a.text}"'), "in a circle: a → a"),
        (
            STEP.replace('"x"', '"{b.text}"') + STEP.replace('"a"', '"b"').replace('"x"', '"{a.text}"'),
            "wait for each other in a circle",
        ),
        (STEP + STEP.replace('"a"', '"b"').replace('"x"', '"{a.vector}"'), "{a.vector} is no output"),
        (STEP + STEP.replace('"a"', '"b"') + 'for_each = "{a.text}"\n', "for_each is no list"),
        (STEP.replace('prompt = "x"', 'prompt = "x", max_tokens = 0'), "max_tokens"),
        (STEP.replace('prompt = "x"', 'prompt = "x", temperature = 9'), "temperature"),
        (STEP.replace('prompt = "x"', 'prompt = "x", stop = 3'), "stop is a text"),
        (STEP.replace('prompt = "x"', "messages = []"), "messages must be"),
        (STEP.replace('prompt = "x"', "seed = 1"), "give a prompt or messages"),
        (STEP.replace('prompt = "x"', 'prompt = ""'), "the prompt is empty"),
        (STEP.replace('prompt = "x"', 'sing = "x"'), "chat has no field 'sing'"),
    ],
)
def test_what_is_wrong_with_a_flow_is_found_before_anything_is_paid(
    tmp_path: Path, text: str, told: str
) -> None:
    with pytest.raises(FlowErrors) as caught:
        read_flow(flow_of(tmp_path, text))
    assert told in caught.value.detail


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    text = STEP.replace('"x"', '"{b.text}"') + STEP.replace('"a"', '"c"').replace('"x"', '"{d.text}"')
    with pytest.raises(FlowErrors) as caught:
        read_flow(flow_of(tmp_path, text))
    assert len(caught.value.errors) == 2


def test_file_that_is_no_flow_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="no TOML"):
        read_flow(flow_of(tmp_path, "a = "))
    with pytest.raises(BadRequest) as caught:
        read_flow(tmp_path / "none.toml")
    assert caught.value.code is ErrorCode.NOT_FOUND


def test_inputs_are_those_of_the_flow(tmp_path: Path) -> None:
    flow = read_flow(flow_of(tmp_path))
    assert given_inputs(flow, {"texts": "one"}) == {"texts": ["one"], "question": "Mood"}
    for given, told in (
        ({"other": "x"}, "no input 'other'"),
        ({}, "needs its input 'texts'"),
        ({"texts": ["a"], "question": ["a"]}, "one value"),
    ):
        with pytest.raises(BadRequest, match=told):
            given_inputs(flow, given)


async def test_record_of_a_map_is_not_taken_for_a_flows(watt: AsyncWattline, tmp_path: Path) -> None:
    from marketplace.client.workbook import Workbook

    job = job_of(tmp_path)
    with Workbook(job.state) as book:
        book.say({"kind": "map"})
    with pytest.raises(BadRequest, match="other work"):
        await run(watt, job)
