"""Prometheus objects behind names of `names.METRICS`. Needs the extra `gateway` or `node`."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from marketplace.telemetry.names import METRICS, Kind, MetricSpec

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

Collector = Counter | Gauge | Histogram


class Metrics:
    """All metrics of one process, in a registry of its own.

    A name is that of `names.METRICS` without the prefix `watt_`. A name or label that is not there is a
    `KeyError` or `ValueError`: a defect, found by the first test that passes.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self._collectors = {_short(spec): _build(spec, self.registry) for spec in METRICS}

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Raises a counter."""
        child = self._child(name, labels)
        if not isinstance(child, Counter):
            raise KeyError(f"{name} is no counter")
        child.inc(amount)

    def set(self, name: str, value: float, **labels: str) -> None:
        """Sets a gauge."""
        child = self._child(name, labels)
        if not isinstance(child, Gauge):
            raise KeyError(f"{name} is no gauge")
        child.set(value)

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Adds one value to a histogram."""
        child = self._child(name, labels)
        if not isinstance(child, Histogram):
            raise KeyError(f"{name} is no histogram")
        child.observe(value)

    def render(self) -> bytes:
        """All metrics in the Prometheus text format, of type `CONTENT_TYPE`."""
        return generate_latest(self.registry)

    def _child(self, name: str, labels: dict[str, str]) -> Collector:
        found = self._collectors[name]
        return found.labels(**labels) if labels else found


def _short(spec: MetricSpec) -> str:
    return spec.name.removeprefix("watt_")


def _build(spec: MetricSpec, registry: CollectorRegistry) -> Collector:
    if spec.kind is Kind.COUNTER:
        return Counter(spec.name, spec.doc, spec.labels, registry=registry)
    if spec.kind is Kind.GAUGE:
        return Gauge(spec.name, spec.doc, spec.labels, registry=registry)
    return Histogram(spec.name, spec.doc, spec.labels, registry=registry, buckets=spec.buckets)
