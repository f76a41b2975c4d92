from __future__ import annotations

import subprocess
import sys

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from marketplace.telemetry.metrics import Metrics
from marketplace.telemetry.names import LOG_DOCS, METRICS, SPAN_DOCS, Kind, Log, Span


def values(metrics: Metrics) -> dict[str, float]:
    families = text_string_to_metric_families(metrics.render().decode())
    return {s.name: s.value for family in families for s in family.samples if not s.name.endswith("_created")}


def test_each_kind_counts_as_it_should() -> None:
    metrics = Metrics(CollectorRegistry())
    metrics.count("jobs_total", task="chat", end="settled")
    metrics.count("settled_atoms_total", 25)
    metrics.set("nodes_connected", 3)
    metrics.observe("job_stage_seconds", 0.2, stage=Span.INFERENCE)
    found = values(metrics)
    assert found["watt_jobs_total"] == 1
    assert found["watt_settled_atoms_total"] == 25
    assert found["watt_nodes_connected"] == 3
    assert found["watt_job_stage_seconds_sum"] == pytest.approx(0.2)


def test_two_processes_parts_do_not_share_numbers() -> None:
    one, two = Metrics(), Metrics()
    one.count("reorgs_total")
    assert values(one)["watt_reorgs_total"] == 1
    assert values(two)["watt_reorgs_total"] == 0


def test_unknown_names_kinds_and_labels_are_refused() -> None:
    metrics = Metrics()
    with pytest.raises(KeyError):
        metrics.count("no_such_total")
    with pytest.raises(KeyError):
        metrics.set("reorgs_total", 1)
    with pytest.raises(KeyError):
        metrics.count("nodes_connected")
    with pytest.raises(KeyError):
        metrics.observe("nodes_connected", 1)
    with pytest.raises(ValueError, match="label names"):
        metrics.count("jobs_total", buyer="0x1")


def test_every_name_is_documented_once() -> None:
    assert set(LOG_DOCS) == set(Log)
    assert set(SPAN_DOCS) == set(Span)
    assert len({spec.name for spec in METRICS}) == len(METRICS)
    for doc in (*LOG_DOCS.values(), *SPAN_DOCS.values(), *(spec.doc for spec in METRICS)):
        assert doc.endswith(".")
        assert "\n" not in doc


def test_metric_names_say_unit_and_kind() -> None:
    for spec in METRICS:
        assert spec.name.startswith("watt_")
        assert spec.name.endswith("_total") == (spec.kind is Kind.COUNTER), spec.name
        assert bool(spec.buckets) == (spec.kind is Kind.HISTOGRAM), spec.name
        assert not {"address", "buyer", "key", "session", "job", "trace"} & set(spec.labels)


def test_a_buyers_install_needs_no_prometheus() -> None:
    code = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "import marketplace.telemetry.logs, marketplace.telemetry.names, marketplace.chain.sender"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
