"""Settings reach every process unchanged, and the owner's key reaches none but the daemon."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from marketplace.protocol.errors import BadRequest
from tests.worker.inference.conftest import chat_model as chat_model
from tests.worker.inference.conftest import image_model as image_model
from worker.inference.engine import Upstream
from worker.main import load_engines
from worker.models import ModelDir
from worker.node.children import child_environment
from worker.node.offers import Price
from worker.settings import NOT_PRICES, ModelPrice, NodeSettings


def test_workers_read_the_very_same_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = NodeSettings(
        data_dir=tmp_path,
        owner_key="0x" + "11" * 32,
        settler_key="0x" + "22" * 32,
        broker_url="redis://:password@127.0.0.1:1/0",
        models=[{"model": "tiny", "price_per_job_atoms": 7}],
        slots=3,
        queue="q",
    )
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    assert NodeSettings() == settings.model_copy(update={"owner_key": None})


def test_workers_do_not_see_keys_they_have_no_use_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATT_NODE_OWNER_KEY", "0x" + "11" * 32)
    made = child_environment(
        {"WATT_NODE_SETTLER_KEY": "x"}, 1, without=("WATT_NODE_OWNER_KEY", "WATT_NODE_SETTLER_KEY")
    )
    assert "WATT_NODE_OWNER_KEY" not in made
    assert "WATT_NODE_SETTLER_KEY" not in made


def test_secrets_are_not_shown() -> None:
    assert "2222" not in repr(NodeSettings(settler_key="0x" + "22" * 32))


def test_several_gateways_are_read_once_each() -> None:
    settings = NodeSettings(gateway_url="ws://a/v1/link, wss://b/v1/link,ws://a/v1/link")
    assert settings.gateways == ("ws://a/v1/link", "wss://b/v1/link")


@pytest.mark.parametrize(
    "changes",
    [
        {"slots": 0},
        {"gateway_url": "http://a"},
        {"models": [{"model": ""}]},
        {"models": [{"model": "tiny", "server": "127.0.0.1:8000"}]},
    ],
)
def test_setting_out_of_range_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        NodeSettings(**changes)


def test_every_setting_is_described() -> None:
    assert all(field.description for field in NodeSettings.model_fields.values())


def test_server_of_a_model_is_found_by_its_name() -> None:
    named = {"model": "big", "server": "http://127.0.0.1:8000/v1", "server_model": "llama"}
    settings = NodeSettings(models=[{"model": "tiny"}, named], server_key="secret", server_stall_ms=500)
    server = Upstream(url=named["server"], model="llama", key="secret", stall_ms=500)
    assert settings.upstreams() == {"big": server}
    assert "secret" not in repr(settings)


def test_prices_are_what_is_left_of_a_models_entry() -> None:
    price = ModelPrice(model="tiny", task="rerank", server="http://a/v1", price_per_job_atoms=7)
    assert Price(**price.model_dump(exclude={*NOT_PRICES})).price_per_job_atoms == 7


def test_model_is_offered_for_the_task_its_entry_names(tmp_path: Path, chat_model: ModelDir) -> None:
    entry = {"model": str(chat_model.path), "task": "rerank"}
    engines = load_engines(NodeSettings(data_dir=tmp_path, models=[entry]))
    assert [(model.task, model.model_id) for model in engines.served] == [("rerank", chat_model.model_id)]
    engines.close()


def test_image_model_is_served_without_a_context(tmp_path: Path, image_model: ModelDir) -> None:
    engines = load_engines(NodeSettings(data_dir=tmp_path, models=[{"model": str(image_model.path)}]))
    assert [(model.task, model.context_tokens) for model in engines.served] == [("classify-image", 1)]
    engines.close()


def test_model_listed_twice_is_refused(tmp_path: Path, chat_model: ModelDir) -> None:
    entries = [{"model": str(chat_model.path), "task": task} for task in ("chat", "rerank")]
    with pytest.raises(BadRequest, match="listed twice"):
        load_engines(NodeSettings(data_dir=tmp_path, models=entries))
