from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from worker.metering import DeclaredSource, RaplSource, StepMeter, Tally, Window, choose_source, split


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
    assert mark == 100
    (package / "energy_uj").write_text("500")
    assert source.microjoules(Window(mark, source.read(), 10, 10)) == 200


def test_rapl_counter_that_wraps_stays_positive(tmp_path: Path) -> None:
    package = zone(tmp_path, "intel-rapl:0", 900, limit=1000)
    source = RaplSource((package,), cores=1)
    mark = source.read()
    (package / "energy_uj").write_text("100")
    assert source.microjoules(Window(mark, source.read(), 10, 10)) == 200


def test_rapl_never_charges_more_than_was_drawn(tmp_path: Path) -> None:
    package = zone(tmp_path, "intel-rapl:0", 0)
    source = RaplSource((package,), cores=1)
    (package / "energy_uj").write_text("100")
    assert source.microjoules(Window(0, 100, 99, 1)) == 100


def test_unreadable_counter_falls_back_to_the_declared_figure_then_to_none(tmp_path: Path) -> None:
    broken = zone(tmp_path, "intel-rapl:0", 0)
    (broken / "energy_uj").write_text("no number")
    assert choose_source(milliwatts_per_core=4000, powercap=tmp_path).method == "model"
    assert choose_source(powercap=tmp_path).method == "none"
    assert choose_source(powercap=tmp_path / "missing").method == "none"
    assert choose_source(powercap=tmp_path).microjoules(Window(0, 9, 9, 9)) == 0
