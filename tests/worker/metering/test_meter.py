from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.metering import (
    DeclaredSource,
    EnergyBook,
    RaplSource,
    StepMeter,
    Tally,
    Window,
    choose_source,
    split,
)
from worker.metering.sensors import processor_celsius, resident_bytes


def counter(start: int, step: int):
    state = {"now": start - step}

    def read() -> int:
        state["now"] += step
        return state["now"]

    return read


def zone(root: Path, name: str, energy: int, limit: int = 1000) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "energy_uj").write_text(f"{energy}\n")
    (folder / "max_energy_range_uj").write_text(f"{limit}\n")
    return folder


@given(st.integers(0, 10**15), st.lists(st.integers(0, 10**6), max_size=40))
def test_split_loses_nothing(total: int, weights: list[int]) -> None:
    shares = split(total, weights)
    assert sum(shares) == (total if sum(weights) else 0)
    assert all(share >= 0 for share in shares)
    assert all(share == 0 for share, weight in zip(shares, weights, strict=True) if weight == 0)


def test_step_is_shared_by_tokens() -> None:
    meter = StepMeter(DeclaredSource(2000), cpu_clock=counter(0, 3_000_000), wall_clock=counter(0, 9_000_000))
    long, short = Tally(), Tally()
    meter.finish(meter.start(), [(long, 2), (short, 1)])
    assert (long.device_nanoseconds, short.device_nanoseconds) == (2_000_000, 1_000_000)
    # 2 W over 3 ms are 6000 microjoules.
    assert (long.energy_microjoules, short.energy_microjoules) == (4000, 2000)
    assert long.reading(meter.method).energy_millijoules == 4
    assert long.reading(meter.method).device_microseconds == 2000


def test_work_never_reads_as_nothing() -> None:
    reading = Tally(device_nanoseconds=1, energy_microjoules=1).reading("model")
    assert (reading.device_microseconds, reading.energy_millijoules) == (1, 1)


def test_reading_names_its_method() -> None:
    assert Tally().reading(DeclaredSource().method).energy_method == "none"
    assert StepMeter(DeclaredSource(1)).method == "model"


def test_rapl_is_chosen_when_readable_and_parts_of_a_package_are_not_counted_twice(tmp_path: Path) -> None:
    package = zone(tmp_path, "intel-rapl:0", 100)
    zone(tmp_path, "intel-rapl:0:0", 60)
    source = choose_source(milliwatts_per_core=4000, powercap=tmp_path, cores=2)
    assert source.method == "rapl"
    mark = source.read()
    assert mark == (100,)
    (package / "energy_uj").write_text("500")
    assert source.microjoules(Window(mark, source.read(), 10, 10)) == 200


def test_rapl_counter_that_wraps_stays_positive(tmp_path: Path) -> None:
    package = zone(tmp_path, "intel-rapl:0", 900, limit=1000)
    source = RaplSource((package,), cores=1)
    mark = source.read()
    (package / "energy_uj").write_text("100")
    assert source.microjoules(Window(mark, source.read(), 10, 10)) == 201


def test_each_package_wraps_by_itself(tmp_path: Path) -> None:
    first = zone(tmp_path, "intel-rapl:0", 900, limit=999)
    second = zone(tmp_path, "intel-rapl:1", 10, limit=999)
    source = RaplSource((first, second), cores=1)
    mark = source.read()
    (first / "energy_uj").write_text("50")
    (second / "energy_uj").write_text("40")
    assert source.drawn_microjoules(mark, source.read()) == 150 + 30


def test_rapl_never_charges_more_than_was_drawn(tmp_path: Path) -> None:
    package = zone(tmp_path, "intel-rapl:0", 0)
    source = RaplSource((package,), cores=1)
    (package / "energy_uj").write_text("100")
    assert source.microjoules(Window((0,), (100,), 99, 1)) == 100


def test_unreadable_counter_falls_back_to_the_declared_figure_then_to_none(tmp_path: Path) -> None:
    broken = zone(tmp_path, "intel-rapl:0", 0)
    (broken / "energy_uj").write_text("no number")
    assert choose_source(milliwatts_per_core=4000, powercap=tmp_path).method == "model"
    assert choose_source(powercap=tmp_path).method == "none"
    assert choose_source(powercap=tmp_path / "missing").method == "none"
    assert choose_source(powercap=tmp_path).microjoules(Window((), (), 9, 9)) == 0


# Names as in the library.
# ruff: noqa: N802
class FakeNvml(ModuleType):
    """As much of `pynvml` as is used; one GPU."""

    NVML_TEMPERATURE_GPU = 0

    class NVMLError(Exception):
        """As the library raises it."""

    def __init__(self, *, broken: bool = False) -> None:
        super().__init__("pynvml")
        self.millijoules, self.broken = 5_000, broken

    def nvmlInit(self) -> None:
        if self.broken:
            raise self.NVMLError("Driver Not Loaded")

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if uuid != "GPU-1":
            raise self.NVMLError("Not Found")
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        self.nvmlInit()
        return self.millijoules

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> SimpleNamespace:
        self.nvmlInit()
        return SimpleNamespace(used=1 << 30)

    def nvmlDeviceGetTemperature(self, handle: str, sensor: int) -> int:
        self.nvmlInit()
        return 61


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    fake = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    return fake


def test_work_on_a_gpu_is_charged_all_its_counter_moved(nvml: FakeNvml, tmp_path: Path) -> None:
    source = choose_source(gpu="GPU-1", powercap=tmp_path)
    assert source.method == "nvml"
    mark = source.read()
    nvml.millijoules += 7
    assert source.microjoules(Window(mark, source.read(), 1, 100)) == 7_000


def test_gpu_and_processor_are_added_and_named_both(nvml: FakeNvml, tmp_path: Path) -> None:
    package = zone(tmp_path, "intel-rapl:0", 100)
    source = choose_source(gpu="GPU-1", powercap=tmp_path, cores=2)
    assert source.method == "nvml+rapl"
    mark = source.read()
    nvml.millijoules += 2
    (package / "energy_uj").write_text("500")
    assert source.microjoules(Window(mark, source.read(), 10, 10)) == 2_000 + 200
    assert source.drawn_microjoules(mark, source.read()) == 2_000 + 400


def test_gpu_without_a_counter_is_never_passed_off_as_measured(
    nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    zone(tmp_path, "intel-rapl:0", 100)
    assert choose_source(gpu="GPU-2", powercap=tmp_path).method == "none"
    assert choose_source(gpu="GPU-2", powercap=tmp_path, milliwatts_per_core=9).method == "model"
    nvml.broken = True
    assert choose_source(gpu="GPU-1", powercap=tmp_path).method == "none"
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert choose_source(gpu="GPU-1", powercap=tmp_path).method == "none"


def test_gpu_that_falls_off_the_bus_stops_the_count_and_not_the_engine(
    nvml: FakeNvml, tmp_path: Path
) -> None:
    source = choose_source(gpu="GPU-1", powercap=tmp_path)
    mark = source.read()
    nvml.millijoules, nvml.broken = 0, True
    assert source.microjoules(Window(mark, source.read(), 1, 1)) == 0


def test_idle_share_is_what_was_drawn_and_charged_to_nobody(nvml: FakeNvml, tmp_path: Path) -> None:
    book = EnergyBook(choose_source(gpu="GPU-1", powercap=tmp_path))
    meter = StepMeter(book, cpu_clock=counter(0, 10), wall_clock=counter(0, 10))
    nvml.millijoules += 30
    long, short = Tally(), Tally()
    mark = meter.start()
    nvml.millijoules += 12
    meter.finish(mark, [(long, 2), (short, 1)])
    nvml.millijoules += 3
    assert (long.energy_microjoules, short.energy_microjoules) == (8_000, 4_000)
    assert book.balance() == (12_000, 33_000)
    assert book.balance() == (12_000, 33_000)
    assert EnergyBook(DeclaredSource(5)).balance() == (0, 0)


def test_machine_that_hides_its_sensors_shows_none(tmp_path: Path) -> None:
    assert processor_celsius(tmp_path / "missing") is None
    hot, dead = tmp_path / "thermal_zone0", tmp_path / "thermal_zone1"
    hot.mkdir()
    dead.mkdir()
    (hot / "temp").write_text("61999\n")
    (dead / "temp").write_text("")
    assert processor_celsius(tmp_path) == 61
    assert resident_bytes(tmp_path / "missing") is None
    assert (resident_bytes() or 0) > 1 << 20
