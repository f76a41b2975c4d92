"""The example of docs/adding-a-task.md is run as it is printed there."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from marketplace.client.verify import check_offline, failures
from marketplace.openai.requests import task_call
from marketplace.protocol.errors import BadRequest
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.payloads import TASKS, Answer, build_payload
from tests.worker.inference.test_road import Road
from tests.worker.inference.test_road import open_road as open_road
from tests.worker.inference.test_scores import logprob
from worker.inference.tasks import ROW_TASKS
from worker.models import ModelDir, Task

PAGE = Path(__file__).parents[3] / "docs" / "adding-a-task.md"
FILES = re.compile(r"^`([\w/]+)\.py`:\n\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The page's two files as modules, registered; gives their source."""
    sources = []
    made: dict[str, Any] = {}
    for name, source in FILES.findall(PAGE.read_text()):
        module = ModuleType(name.replace("/", "."))
        monkeypatch.setitem(sys.modules, module.__name__, module)
        exec(compile(source, f"{name}.py", "exec"), module.__dict__)  # noqa: S102  # our own page
        made |= module.__dict__
        sources.append(source)
    monkeypatch.setitem(TASKS, "surprise", made["SurprisePayload"])
    monkeypatch.setitem(ROW_TASKS, "surprise", made["SurpriseTask"])
    return sources


def test_example_is_complete_in_less_than_a_hundred_lines(example: list[str]) -> None:
    assert len(example) == 2
    assert sum(len(source.splitlines()) for source in example) + 3 < 100


def test_example_runs_from_order_to_verified_receipt(
    example: list[str], chat_model: ModelDir, open_road: Callable[..., Road]
) -> None:
    model: Any = replace(chat_model, task="surprise")  # type: ignore[arg-type]
    road = open_road(model)
    payload = build_payload("surprise", to_hex(model.model_id), {"input": ["quite so", "no"]})
    order_hash = road.take(payload)
    road.execute(order_hash)
    bundle = road.bundle(order_hash)
    assert failures(check_offline(bundle)) == []
    assert bundle.receipt.units_in == len("\nquite so") + len("\nno")
    rows = payload.shown(Answer(bundle.chunks))["results"]
    for text, row in zip(("quite so", "no"), rows, strict=True):
        total, tokens = logprob(chat_model, "\n", text)
        assert abs(row["millionths"] + 1e6 * total / tokens) < 100


def test_example_has_a_route_body_of_its_fields(example: list[str]) -> None:
    call = task_call("surprise", TASKS["surprise"])(model="tiny", input=["a"])
    assert call.payload("surprise").task == "surprise"
    with pytest.raises(BadRequest):
        task_call("surprise", TASKS["surprise"])(model="tiny", input=[" "]).payload("sing")


def test_every_task_has_a_payload_a_name_and_an_engine() -> None:
    assert {task.value for task in Task} == set(TASKS)
    assert set(ROW_TASKS) | {Task.CHAT} == set(Task)


def test_file_of_each_task_is_small() -> None:
    root = PAGE.parents[1]
    engines = [root / "worker" / "inference" / f"{n}.py" for n in ("classify", "embed", "images", "rerank")]
    files = [*(root / "marketplace" / "protocol" / "tasks").glob("*.py"), *engines]
    assert {file.name for file in files if len(file.read_text().splitlines()) >= 100} == set()
