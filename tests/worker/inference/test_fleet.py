"""Versions come and go while jobs run: none fails, none is lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from marketplace.protocol.hexes import to_hex
from marketplace.protocol.payloads import ChatMessage, ChatPayload
from tests.worker.inference.conftest import ask, llama_config, save_chat_model
from worker.inference.engine import EngineSettings
from worker.inference.errors import ModelChanged, ModelNotServed
from worker.inference.fleet import Fleet, Version
from worker.inference.pool import EnginePool, engine_builder
from worker.ledger import HeldOffer, Ledger
from worker.models import ModelDir, rules
from worker.models.rules import Serving
from worker.models.serving import ServingBook
from worker.models.shelf import Shelf

NAMES = ("tiny", "tiny-2", "tiny-3")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shelf with three versions of one small model."""
    place = tmp_path_factory.mktemp("shelf")
    for seed, name in enumerate(NAMES):
        torch.manual_seed(seed)
        save_chat_model(LlamaForCausalLM(llama_config()), place / "made" / name)
        Shelf(place, lambda _: None).add(str(place / "made" / name))
    return place


class Bench:
    """A fleet over the shelf, whose clock stands still until it is moved."""

    def __init__(self, home: Path, ledger: Ledger, **pool: Any) -> None:
        self.now_ms = 1_000_000
        self.ledger, self.book = ledger, ServingBook(ledger)
        self.shelf = Shelf(home, lambda _: None)
        self.pool = EnginePool([], engine_builder(EngineSettings(), now_ms=lambda: 0), **pool)
        self.fleet = Fleet(
            ledger=ledger,
            shelf=self.shelf,
            pool=self.pool,
            priced=["tiny"],
            pinned=frozenset(),
            now_ms=lambda: self.now_ms,
        )

    def id_of(self, name: str) -> bytes:
        return self.shelf.stored(name).manifest.model_id

    def tell(self, item: Serving) -> list[tuple[str, int, bool]]:
        """Tells what to serve, and gives the versions after one step."""
        self.book.tell([item])
        self.fleet.step()
        return self.versions()

    def versions(self) -> list[tuple[str, int, bool]]:
        names = {self.id_of(name): name for name in NAMES}
        return [(names[v.model_id], v.canary_bps, v.offered) for v in self.fleet.versions()]

    def offered(self, name: str, valid_until: int) -> None:
        self.ledger.offers.put(
            HeldOffer(
                offer_hash=name.encode().ljust(32, b"\0"),
                model_id=self.id_of(name),
                message=b"",
                signature=b"",
                valid_until=valid_until,
            )
        )

    def loaded(self) -> set[bytes]:
        return {model.model_id for model in self.pool.loaded()}

    def say(self, name: str, text: str = "Hi", tokens: int = 12) -> str:
        model_id = self.id_of(name)
        payload = ChatPayload(
            model=to_hex(model_id), messages=(ChatMessage(role="user", content=text),), max_tokens=tokens
        )
        return ask(self.pool.engine_for(model_id), payload).text


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    made = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    yield made
    made.close()


@pytest.fixture
def bench(home: Path, ledger: Ledger) -> Iterator[Bench]:
    made = Bench(home, ledger)
    made.fleet.start()
    yield made
    made.fleet.close()


OLD = Serving(source="tiny", price="tiny", current="tiny")
TRIED = rules.roll_out(OLD, "tiny-2", 500)


def test_trial_is_loaded_beside_and_has_the_name_and_price_of_the_one_it_is_tried_for(bench: Bench) -> None:
    assert bench.tell(TRIED) == [("tiny", 0, True), ("tiny-2", 500, True)]
    assert {(v.name, v.source) for v in bench.fleet.versions()} == {("tiny", "tiny")}
    assert bench.loaded() == {bench.id_of("tiny"), bench.id_of("tiny-2")}


def test_version_that_was_replaced_is_no_longer_offered_and_leaves_memory_when_idle(bench: Bench) -> None:
    bench.offered("tiny", valid_until=1_600)
    bench.tell(TRIED)
    assert bench.tell(rules.promote(TRIED)) == [("tiny-2", 0, True), ("tiny", 0, False)]
    assert bench.loaded() == {bench.id_of("tiny-2")}


def test_order_under_an_offer_of_before_is_still_done(bench: Bench) -> None:
    bench.offered("tiny", valid_until=1_600)
    before = bench.say("tiny")
    bench.tell(rules.promote(TRIED))
    assert bench.say("tiny") == before
    assert bench.loaded() == {bench.id_of("tiny-2")}


def test_version_is_forgotten_when_its_last_offer_has_ended(bench: Bench) -> None:
    bench.offered("tiny", valid_until=1_600)
    bench.tell(rules.promote(TRIED))
    bench.now_ms = 1_599_999
    assert not bench.fleet.step()
    bench.now_ms = 1_600_000
    assert bench.fleet.step()
    assert bench.versions() == [("tiny-2", 0, True)]
    with pytest.raises(ModelNotServed):
        bench.say("tiny")


def test_rolling_back_offers_the_version_before_again(bench: Bench) -> None:
    made = rules.promote(TRIED)
    bench.tell(made)
    bench.offered("tiny-2", valid_until=9_999)
    assert bench.tell(rules.roll_back(made)) == [("tiny", 0, True), ("tiny-2", 0, False)]


def test_version_that_cannot_be_had_changes_nothing_and_is_told(bench: Bench) -> None:
    before = bench.say("tiny")
    assert bench.tell(rules.roll_out(OLD, "no-such-model", 500)) == [("tiny", 0, True)]
    assert "no-such-model" in bench.book.problem
    assert bench.say("tiny") == before


def test_node_that_starts_again_serves_what_it_was_told(bench: Bench, home: Path, ledger: Ledger) -> None:
    bench.offered("tiny", valid_until=1_600)
    bench.tell(rules.promote(TRIED))
    again = Bench(home, ledger)
    again.fleet.start()
    assert again.versions() == [("tiny-2", 0, True), ("tiny", 0, False)]
    assert again.loaded() == {again.id_of("tiny-2")}
    again.fleet.close()


def test_swap_promotion_and_roll_back_under_load_fail_and_lose_no_job(bench: Bench) -> None:
    """Callers ask for whichever version serves, without a pause, while versions come and go."""
    for name in NAMES:
        bench.offered(name, valid_until=9_999)
    stop, answers, errors = threading.Event(), dict[tuple[str, int], set[str]](), list[Exception]()
    lock = threading.Lock()

    def caller(number: int) -> None:
        turn = 0
        while not stop.is_set() or turn < 3:
            turn += 1
            served = [name for name, _, offered in bench.versions() if offered]
            name = served[(number + turn) % len(served)]
            try:
                text = bench.say(name, f"job {number}", tokens=24)
            except Exception as error:  # noqa: BLE001  # the test looks at it
                errors.append(error)
                return
            with lock:
                answers.setdefault((name, number), set()).add(text)

    threads = [threading.Thread(target=caller, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    item = OLD
    for change in (
        lambda it: rules.roll_out(it, "tiny-2", 500),
        rules.promote,
        rules.roll_back,
        lambda it: rules.promote(rules.roll_out(it, "tiny-3", 10_000)),
        lambda it: rules.roll_out(it, "tiny-2", 5_000),
        rules.roll_back,
        rules.roll_back,
    ):
        item = change(item)
        bench.tell(item)
        offered = {name for name, _, is_offered in bench.versions() if is_offered}
        for _ in range(6_000):  # a minute at most
            with lock:
                if errors or offered <= {name for name, _ in answers}:
                    break
            stop.wait(0.01)
    stop.set()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive(), "a caller hangs"
    assert errors == []
    # The same prompt has one answer per version, whenever it was asked and whatever was loaded around it.
    assert {len(texts) for texts in answers.values()} == {1}
    assert {name for name, _ in answers} == {*NAMES}
    assert bench.loaded() == {bench.id_of("tiny")}


def test_changed_file_stops_new_jobs_and_says_so(tmp_path: Path, home: Path, ledger: Ledger) -> None:
    own = tmp_path / "own"
    made = Shelf(own, lambda _: None).add(str(home / "made" / "tiny"))
    bench = Bench(own, ledger)
    bench.fleet.start()
    engine = bench.pool.engine_for(made.model_id)
    assert bench.fleet.rehash() == []
    (made.path / "generation_config.json").write_text("{}")
    (found,) = bench.fleet.rehash()
    assert to_hex(made.model_id) in found
    assert bench.fleet.versions() == []
    assert bench.book.problem == found
    with pytest.raises(ModelChanged, match="not run any more"):
        bench.pool.engine_for(made.model_id)
    with pytest.raises(ModelChanged):
        engine.units_in(ChatPayload(model=to_hex(made.model_id), messages=(_hello(),), max_tokens=1))
    bench.fleet.close()


def test_watch_follows_and_reports_until_it_is_closed(bench: Bench) -> None:
    heard, reports = threading.Event(), list[list[Version]]()

    def report(versions: Any) -> None:
        reports.append(list(versions))
        heard.set()

    bench.fleet.watch(report, rehash_seconds=0)
    bench.book.tell([TRIED])
    assert heard.wait(60)
    assert [v.canary_bps for v in reports[0]] == [0, 500]


def weights_of(model: ModelDir) -> int:
    return sum(file.size for file in model.manifest.files if file.path.endswith(".safetensors"))


@pytest.fixture
def models(home: Path) -> list[ModelDir]:
    shelf = Shelf(home, lambda _: None)
    return [shelf.find(name) for name in NAMES]


def room_for_two(models: list[ModelDir], **options: Any) -> EnginePool:
    bound = 2 * weights_of(models[0]) + weights_of(models[0]) // 2
    build = engine_builder(EngineSettings(), now_ms=lambda: 0)
    return EnginePool(models, build, memory_bytes=bound, used_bytes=lambda: 0, **options)


def test_model_unused_for_longest_makes_room(models: list[ModelDir]) -> None:
    first, second, third = (model.model_id for model in models)
    pool = room_for_two(models)
    pool.load()
    assert {model.model_id for model in pool.loaded()} == {first, second}
    pool.engine_for(first)
    pool.engine_for(third)
    assert {model.model_id for model in pool.loaded()} == {first, third}
    assert pool.sizes() == {first: weights_of(models[0]), third: weights_of(models[2])}
    pool.close()


def test_pinned_model_stays_though_it_is_unused_for_longest(models: list[ModelDir]) -> None:
    first, _, third = (model.model_id for model in models)
    pool = room_for_two(models, pinned=frozenset({first}))
    pool.load()
    pool.engine_for(third)
    assert {model.model_id for model in pool.loaded()} == {first, third}
    pool.close()


def test_model_that_runs_a_job_stays_and_the_newcomer_waits_for_it(models: list[ModelDir]) -> None:
    first, second, third = (model.model_id for model in models)
    pool = room_for_two(models)
    arrived = threading.Event()

    def newcomer() -> None:
        pool.engine_for(third)
        arrived.set()

    with pool.using(first), pool.using(second):
        waiting = threading.Thread(target=newcomer)
        waiting.start()
        assert not arrived.wait(0.3)
        assert {model.model_id for model in pool.loaded()} == {first, second}
    assert arrived.wait(60)
    waiting.join(10)
    assert len(pool.loaded()) == 2
    pool.close()


def _hello() -> ChatMessage:
    return ChatMessage(role="user", content="Hi")
