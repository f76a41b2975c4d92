"""The script for GPUs, on a processor and with little to do: what it measures there says nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.bench import gpu


def test_script_measures_every_batch_and_compares_bits(tmp_path: Path) -> None:
    plan = gpu.Plan(device="cpu", model="15M fp32", batches=(1, 3), words=9, tokens=4, sequences=2, scale=64)
    found = {figure.name: figure for figure in gpu.figures(plan, tmp_path)}
    for batch in plan.batches:
        assert found[f"batch {batch}, engine"].value > 0
        assert found[f"batch {batch}, engine ÷ bare model"].value > 0
        assert found[f"batch {batch}, bare decoding, share of the device's limit"].value > 0
    assert found["equal to the bit, batches of 3"].met
    assert found["equal to the bit, replayed"].met
    assert not [name for name in found if "NVML" in name]


def test_without_a_gpu_nothing_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 2
    assert "no GPU" in capsys.readouterr().err
