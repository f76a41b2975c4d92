from __future__ import annotations

import pytest

from tests.worker.inference.conftest import ask, chat, embed, together
from worker.inference.engine import Engine, EngineSettings
from worker.inference.errors import EngineFailed, ModelNotServed
from worker.inference.pool import EnginePool, engine_builder
from worker.models import ModelDir


class Builder:
    """The usual builder, which remembers what it built."""

    def __init__(self) -> None:
        self.build = engine_builder(EngineSettings(), now_ms=lambda: 0)
        self.built: list[Engine] = []

    def __call__(self, model: ModelDir) -> Engine:
        self.built.append(self.build(model))
        return self.built[-1]


@pytest.fixture
def pool(chat_model: ModelDir, embed_model: ModelDir):
    pool = EnginePool([chat_model, embed_model], Builder())
    yield pool
    pool.close()


def test_each_model_has_one_engine_of_its_task(
    pool: EnginePool, chat_model: ModelDir, embed_model: ModelDir
) -> None:
    assert pool.loaded() == ()
    pool.load()
    assert {model.model_id for model in pool.loaded()} == {chat_model.model_id, embed_model.model_id}
    assert ask(pool.engine_for(chat_model.model_id), chat(chat_model, "Hi")).finish
    assert ask(pool.engine_for(embed_model.model_id), embed(embed_model, "w1")).vectors
    assert len(pool._build.built) == 2


def test_model_of_another_node_is_not_served(pool: EnginePool) -> None:
    with pytest.raises(ModelNotServed):
        pool.engine_for(bytes(32))


def test_engine_that_broke_down_is_replaced(
    pool: EnginePool, chat_model: ModelDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = pool.engine_for(chat_model.model_id)
    with monkeypatch.context() as patched:
        patched.setattr("worker.inference.ragged.RaggedModel.decode", lambda *_: 1 // 0)
        with pytest.raises(EngineFailed):
            ask(first, chat(chat_model, "Hi"))
    assert chat_model not in pool.loaded()
    assert ask(pool.engine_for(chat_model.model_id), chat(chat_model, "Hi")).finish
    assert ask(first, chat(chat_model, "Hi")).finish
    assert len(pool._build.built) == 2


def test_callers_at_the_same_time_share_one_engine(pool: EnginePool, chat_model: ModelDir) -> None:
    together(*(lambda: pool.engine_for(chat_model.model_id) for _ in range(4)))
    assert len(pool._build.built) == 1


def test_closed_pool_starts_no_engine(pool: EnginePool, chat_model: ModelDir) -> None:
    pool.load()
    pool.close()
    assert pool.loaded() == ()
    with pytest.raises(EngineFailed, match="shutting down"):
        pool.engine_for(chat_model.model_id)
