"""`when` of a flow's step: one comparison, steps behind it, and that what is skipped costs nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from marketplace.client import conditions, flows
from marketplace.client.aio import AsyncWattline
from marketplace.client.flow_file import FlowErrors, read_flow
from marketplace.client.purchases import Terms
from marketplace.protocol.errors import BadRequest
from tests.client.fake_market import FakeMarket
from tests.client.test_flows import FLOW, flow_of, job_of, run

MOODS = 'when = { value = "{moods.label}", is = "%s" }\n'
BEST = 'id = "best"\n'


def guarded(label: str, step: str = "summarise") -> str:
    """The flow with a condition on a step's label; the market's is `good`."""
    return FLOW.replace(f'id = "{step}"\n', f'id = "{step}"\n' + MOODS % label)


@pytest.mark.parametrize(
    ("test", "value", "holds"),
    [
        ({"is": "good"}, "good", True),
        ({"is": "good"}, "Good", False),
        ({"is": 3}, 3, True),
        ({"is": True}, True, True),
        ({"is_not": "good"}, "bad", True),
        ({"is_not": "good"}, "good", False),
        ({"contains": "praise"}, "Praise.", True),
        ({"contains": "praise"}, "A complaint", False),
        ({"contains": "a"}, ["b", "a"], True),
        ({"contains": "a"}, ["ab"], False),
        ({"above": 2}, 2.5, True),
        ({"above": 2}, 2, False),
        ({"above": 2}, "2.5", True),
        ({"below": 0.5}, 0.25, True),
        ({"below": 0.5}, 0.5, False),
    ],
)
def test_each_comparison(test: dict[str, Any], value: Any, holds: bool) -> None:
    table = {"value": "{a.b}", **test}
    assert conditions.problem_of(table) is None
    why = conditions.read(table).why_not({"a": {"b": value}})
    assert (why is None) is holds
    assert holds or repr(value) in str(why)


@pytest.mark.parametrize("value", ["many", [], None, True])
def test_number_that_is_none_is_an_error_and_no_answer(value: Any) -> None:
    with pytest.raises(BadRequest, match="is no number"):
        conditions.read({"value": "{x}", "above": 1}).why_not({"x": value})


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('when = "true"', "when is a table"),
        ('when = { is = "good" }', "when is a table"),
        ('when = { value = "{moods.label}" }', "in one way: is, is_not"),
        ('when = { value = "{moods.label}", is = "a", is_not = "b" }', "in one way"),
        ('when = { value = "{moods.label}", eval = "1" }', "in one way"),
        ('when = { value = "{moods.label}", above = "2" }', "above takes a number"),
        ('when = { value = "{moods.label}", above = true }', "above takes a number"),
        ('when = { value = "{moods.label}", is = ["a"] }', "is takes a text"),
        ('when = { value = "{nobody.label}", is = "a" }', "names {nobody.label}, which is none of"),
        ('when = { value = "{moods.smell}", is = "a" }', "{moods.smell} is no output"),
        ('when = { value = "{item}", is = "a" }', "names {item}, which is none of"),
        ('when = { value = "{best.best}", is = "a" }', "in a circle"),
    ],
)
def test_condition_that_cannot_be_is_found_before_anything_is_bought(
    tmp_path: Path, line: str, problem: str
) -> None:
    with pytest.raises(FlowErrors) as caught:
        read_flow(flow_of(tmp_path, FLOW.replace(BEST, f"{BEST}{line}\n")))
    assert problem in caught.value.detail


async def test_step_runs_where_its_condition_holds(
    watt: AsyncWattline, market: FakeMarket, tmp_path: Path
) -> None:
    statement = await run(watt, job_of(tmp_path, guarded("good")))
    assert {report.state for report in statement.steps} == {"done"}
    assert len(market.orders) == 5


async def test_skipped_step_and_those_that_need_it_cost_nothing_and_say_why(
    watt: AsyncWattline, market: FakeMarket, tmp_path: Path
) -> None:
    job = job_of(tmp_path, guarded("bad"))
    plan = await flows.forecast(watt, job)
    assert all(each.why_not is None for each in plan.steps), "not known before: priced as if it ran"
    statement = await flows.run(watt, plan, Terms())
    found = {report.step.id: report for report in statement.steps}
    assert {name: report.state for name, report in found.items()} == {
        "vectors": "done",
        "moods": "done",
        "summarise": "skipped",
        "best": "skipped",
    }
    assert found["summarise"].why_not == "{moods.label} is 'bad': no, 'good'"
    assert found["best"].why_not == "it needs summarise, which was skipped"
    assert (found["summarise"].tally.paid_atoms, found["summarise"].jobs) == (0, 0)
    assert (statement.failed, len(market.orders), statement.tally.jobs) == (0, 2, 2)
    assert sorted(json.loads(job.out.read_text())["outputs"]) == ["moods", "vectors"]
    # The next run knows it beforehand, and asks nobody for a price.
    again = await flows.forecast(watt, job)
    assert [(each.step.id, each.most_atoms) for each in again.steps if each.why_not] == [
        ("summarise", 0),
        ("best", 0),
    ]
    assert again.most_atoms == 0
    assert (await flows.run(watt, again, Terms())).failed == 0
    assert len(market.orders) == 2


async def test_condition_on_what_is_no_number_fails_its_step_alone(
    watt: AsyncWattline, market: FakeMarket, tmp_path: Path
) -> None:
    text = FLOW.replace(BEST, BEST + 'when = { value = "{moods.label}", above = 1 }\n')
    statement = await run(watt, job_of(tmp_path, text))
    states = {report.step.id: report.state for report in statement.steps}
    assert (states["best"], states["summarise"]) == ("failed", "done")
    (problem,) = [problem for report in statement.steps for problem in report.problems]
    assert problem["message"] == "when: 'good' is no number"


async def test_step_behind_a_failed_one_is_left_and_not_skipped(
    watt: AsyncWattline, market: FakeMarket, tmp_path: Path
) -> None:
    plan = await flows.forecast(watt, job_of(tmp_path, guarded("bad", "best")))
    capped = await flows.run(watt, plan, Terms(cap_atoms=0))
    assert {report.state for report in capped.steps} == {"left"}
    assert market.orders == []
