"""What a node tells of itself: one file, one page, one table, and the same figures in all three."""

import io
import json
import re
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from marketplace.telemetry.names import METRICS
from tests.cli import shapes
from tests.worker.support import Bench, Clock
from worker.cli.top import table
from worker.metering import DeclaredSource, EnergyBook, Stats
from worker.node.figures import reading, serve
from worker.node.live import LiveFile, read_live
from worker.process import Counters
from worker.receipts import ChunkSpool, failed_work


class Busy:
    """An executor with two jobs."""

    running = 2


def written(bench: Bench, path: Path) -> dict[str, Any]:
    """The file of a worker that finished one job and failed another."""
    stats, energy = Stats(), EnergyBook(DeclaredSource(4000))
    energy.batch = 2
    stats.first_token("chat", 40)
    stats.first_token("chat", 400_000)
    stats.wrote(3)
    stats.ended(
        "chat", bench.work(device_microseconds=1_500_000, energy_millijoules=2_500, energy_method="model")
    )
    stats.ended("chat", failed_work("internal", started_at_ms=1, finished_at_ms=2))
    spool = ChunkSpool(bench.ledger, "me", lambda _hashes: None)
    LiveFile(path, Counters(stats, energy, Busy(), spool).read, bench.clock).write()  # type: ignore[arg-type]
    found = read_live(path, bench.clock.ms)
    assert found is not None
    return found


def page(port: int) -> dict[str, dict[tuple[str, ...], float]]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        text = response.read().decode()
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            # Labels come sorted by name: direction, end and le before task.
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


def test_page_shows_what_the_worker_counted_and_the_ledger_queues(bench: Bench, tmp_path: Path) -> None:
    bench.take(1)
    path = tmp_path / "infer.json"
    written(bench, path)
    port, stop = serve(0, lambda: reading(bench.ledger, path, bench.clock.ms))
    try:
        found = page(port)
    finally:
        stop()
    assert found["watt_queue_depth"] == {(): 1}
    assert found["watt_node_worker_up"] == {(): 1}
    assert found["watt_node_batch_size"] == {(): 2}
    assert found["watt_jobs_total"] == {("done", "chat"): 1, ("failed", "chat"): 1}
    assert found["watt_tokens_total"] == {("in", "chat"): 5, ("out", "chat"): 3}
    assert found["watt_node_device_seconds_total"] == {("chat",): 1.5}
    assert found["watt_node_joules_total"] == {("model",): 2.5}
    assert found["watt_node_idle_joules_total"] == {("model",): 0}
    assert found["watt_node_memory_bytes"]["cpu",] > 1 << 20
    first = found["watt_time_to_first_token_seconds_bucket"]
    assert (first["0.025", "chat"], first["0.05", "chat"], first["+Inf", "chat"]) == (0, 1, 2)
    assert found["watt_time_to_first_token_seconds_sum"] == {("chat",): 400.04}
    documented = {spec.name for spec in METRICS}
    assert {re.sub("_(bucket|sum|count)$", "", name) for name in found} - documented == set()


def test_worker_that_is_silent_counts_as_away(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "infer.json"
    written(bench, path)
    bench.clock.ms += 10_001
    assert reading(bench.ledger, path, bench.clock.ms) == {"worker": False, "queue_depth": 0, "running": 0}
    path.write_text("{half")
    assert read_live(path, Clock().ms) is None


def test_page_answers_while_the_worker_is_away(bench: Bench, tmp_path: Path) -> None:
    port, stop = serve(0, lambda: reading(bench.ledger, tmp_path / "none.json", bench.clock.ms))
    try:
        assert page(port)["watt_node_worker_up"] == {(): 0}
        with pytest.raises(OSError, match="in use"):
            serve(port, dict)
    finally:
        stop()


def test_table_shows_the_figures_a_person_looks_for(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "infer.json"
    written(bench, path)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table(reading(bench.ledger, path, bench.clock.ms)))
    text = console.export_text()
    for name in ("waiting", "batch", "tokens/s", "first token, chat", "memory, cpu", "energy of jobs, model"):
        assert name in text
    assert "≤ 50 ms" in text


def test_top_prints_one_reading_as_json(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATT_NODE_DATA_DIR", str(tmp_path / "node"))
    code, out, _ = shapes.run("node", "top", "--json")
    assert (code, json.loads(out)) == (0, {"worker": False, "queue_depth": 0, "running": 0})
    path = tmp_path / "infer.json"
    written(bench, path)
    shapes.check("node top", reading(bench.ledger, path, bench.clock.ms))
