"""What a node does right now: one reading for `/metrics` and `watt node top`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from marketplace.telemetry.names import METRICS, MetricSpec
from worker.ledger import Ledger, OrderState
from worker.metering.stats import FIRST_TOKEN_MS
from worker.node.live import read_live

_SPECS: Final = {spec.name: spec for spec in METRICS}
Read = Callable[[], dict[str, Any]]


def reading(ledger: Ledger, live_file: Path, now_ms: int) -> dict[str, Any]:
    """The ledger's queue and what the infer process last wrote; `worker` is False while it is away."""
    counts = ledger.orders.counts((OrderState.QUEUED, OrderState.RUNNING))
    live = read_live(live_file, now_ms)
    return {
        "worker": live is not None,
        "queue_depth": counts[OrderState.QUEUED],
        "running": counts[OrderState.RUNNING],
        **({} if live is None else {"live": live}),
    }


def serve(port: int, read: Read) -> tuple[int, Callable[[], None]]:
    """Answers `/metrics` on loopback; gives the port (any free one for 0) and what stops it.

    Raises:
        OSError: the port is taken.
    """
    registry = CollectorRegistry()
    registry.register(NodeCollector(read))
    server, thread = start_http_server(port, addr="127.0.0.1", registry=registry)

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return server.server_port, stop


class NodeCollector(Collector):
    """Turns a reading into Prometheus metrics, by the names the market documents."""

    def __init__(self, read: Read) -> None:
        self._read = read

    def describe(self) -> list[Metric]:
        """Nothing in advance: a reading needs the ledger, and registering must not."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All metrics of this moment."""
        found = self._read()
        live: dict[str, Any] = found.get("live", {})
        yield _gauge("watt_queue_depth", {(): found["queue_depth"]})
        yield _gauge("watt_node_running_jobs", {(): found["running"]})
        yield _gauge("watt_node_worker_up", {(): int(found["worker"])})
        if not live:
            return
        yield _gauge("watt_node_batch_size", {(): live["batch"]})
        yield _gauge("watt_node_tokens_per_second", {(): live["tokens_per_second"]})
        yield _gauge("watt_node_memory_bytes", _by_name(live["memory_bytes"]))
        yield _gauge("watt_node_temperature_celsius", _by_name(live["celsius"]))
        yield _counter("watt_jobs_total", _rows(live["jobs"]))
        yield _counter("watt_tokens_total", _rows(live["tokens"]))
        yield _counter("watt_node_device_seconds_total", _by_name(live["device_microseconds"], 1_000_000))
        yield _counter("watt_node_joules_total", _by_name(live["energy_millijoules"], 1_000))
        idle = {live["energy_method"]: live["idle_microjoules"]}
        yield _counter("watt_node_idle_joules_total", _by_name(idle, 1_000_000))
        yield _first_token(live["first_token"])


def _gauge(name: str, values: dict[tuple[str, ...], float]) -> Metric:
    spec = _SPECS[name]
    family = GaugeMetricFamily(name, spec.doc, labels=spec.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def _counter(name: str, values: dict[tuple[str, ...], float]) -> Metric:
    spec = _SPECS[name]
    family = CounterMetricFamily(name, spec.doc, labels=spec.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def _first_token(found: dict[str, Any]) -> Metric:
    spec: MetricSpec = _SPECS["watt_time_to_first_token_seconds"]
    family = HistogramMetricFamily(spec.name, spec.doc, labels=spec.labels)
    for task, one in found.items():
        below, buckets = 0, []
        for limit, count in zip([*(ms / 1000 for ms in FIRST_TOKEN_MS), "+Inf"], one["counts"], strict=True):
            below += count
            buckets.append((str(limit), below))
        family.add_metric([task], buckets, sum_value=one["sum_ms"] / 1000)
    return family


def _by_name(values: dict[str, Any], divisor: int = 1) -> dict[tuple[str, ...], float]:
    return {(name,): value / divisor for name, value in values.items() if value is not None}


def _rows(rows: list[list[Any]]) -> dict[tuple[str, ...], float]:
    return {tuple(row[:-1]): row[-1] for row in rows}
