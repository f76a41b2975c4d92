"""Settings reach every process unchanged, and the owner's key reaches none but the daemon."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from worker.node.children import child_environment
from worker.settings import NodeSettings


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


@pytest.mark.parametrize("changes", [{"slots": 0}, {"gateway_url": "http://a"}, {"models": [{"model": ""}]}])
def test_setting_out_of_range_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        NodeSettings(**changes)


def test_every_setting_is_described() -> None:
    assert all(field.description for field in NodeSettings.model_fields.values())
