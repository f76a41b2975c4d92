"""Making mutants, choosing among them, keeping what is known of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.assure.mutants.bench import Base, Code, Verdict, fingerprint, stages
from tests.assure.mutants.journal import Journal
from tests.assure.mutants.mutant import Mutant, drawn, mutants
from tests.assure.mutants.report import faults, reasons, report
from tests.assure.mutants.selection import Selection, select
from tests.assure.mutants.worker import Worker
from tests.assure.tiny import SNIPPETS, planted

SUITE_ABI = '[{"type": "function", "name": "test_A"}]'


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    tree = planted(tmp_path_factory.mktemp("snippets"), {"contracts/Snippets.sol": SNIPPETS})
    with Worker(tree, ["contracts/Snippets.sol"]) as started:
        yield started


@pytest.fixture(scope="module")
def snippets(worker: Worker) -> list[Mutant]:
    return mutants(worker.survey["asts"], worker.survey["sources"])["contracts/Snippets.sol"]


@pytest.mark.parametrize(
    ("function", "operator", "after"),
    [
        ("relation", "relational", "return a <= b;"),
        ("relation", "relational", "return a >= b;"),
        ("sum", "arithmetic", "return (a - b) * 72 hours;"),
        ("sum", "literal", "return (a + b) * 71 hours;"),
        ("sum", "return", "return 0;"),
        ("sum", "swapped name", "return (b + b) * 72 hours;"),
        ("bits", "bitwise", "return a >> b;"),
        ("guard", "condition", "if (!(a > b && b > 0)) revert Bad(a, b);"),
        ("guard", "condition", "if (true) revert Bad(a, b);"),
        ("guard", "logical", "if (a > b) revert Bad(a, b);"),
        ("guard", "revert", "if (a > b && b > 0) {}"),
        ("guard", "error argument", "if (a > b && b > 0) revert Bad(0, b);"),
        ("guard", "swapped arguments", "if (a > b && b > 0) revert Bad(b, a);"),
        ("need", "condition", "require(!(a > 0));"),
        ("move", "assignment", "total -= a;"),
        ("move", "assignment", "total = a;"),
        ("move", "statement", "{}"),
        ("move", "event", "{}"),
        ("move", "event argument", "emit Moved(address(0), a);"),
        ("move", "environment", "emit Moved(tx.origin, a);"),
        ("move", "modifier", "function move(uint256 a) external {"),
        ("count", "unary", "for (uint256 i = 0; i < a; --i) {"),
        ("state", "swapped name", "return Light.Off;"),
        ("low", "opcode", "c := sub(a, 0x20)"),
        ("low", "literal", "c := add(a, 0x21)"),
        ("low", "statement", "{}"),
        ("", "literal", "uint256 private constant LIMIT = 1000001;"),
    ],
)
def test_operator_makes_the_mutant(snippets: list[Mutant], function: str, operator: str, after: str) -> None:
    place = f"Snippets.{function}".rstrip(".")
    assert (operator, after) in [(m.operator, m.after) for m in snippets if m.function == place]


def test_no_two_mutants_have_one_id_or_one_text(snippets: list[Mutant]) -> None:
    assert len({m.id for m in snippets}) == len({m.text for m in snippets}) == len(snippets) > 50


def test_interfaces_and_declarations_are_left_alone(snippets: list[Mutant]) -> None:
    assert all("interface" not in m.before and not m.before.startswith(("event", "error")) for m in snippets)


def test_id_outlives_edits_elsewhere_in_the_file(tmp_path: Path, snippets: list[Mutant]) -> None:
    moved = SNIPPETS.replace("contract Snippets {", "// One line more, with an é.\ncontract Snippets {")
    tree = planted(tmp_path, {"contracts/Snippets.sol": moved})
    with Worker(tree, ["contracts/Snippets.sol"]) as started:
        again = mutants(started.survey["asts"], started.survey["sources"])["contracts/Snippets.sol"]
    assert {m.id for m in again} == {m.id for m in snippets}
    assert {m.line for m in again} != {m.line for m in snippets}


def test_worker_answers_again_after_a_request_that_took_too_long(worker: Worker) -> None:
    request = {"targets": ["contracts/Snippets.sol:Snippets"], "changed": {}}
    with pytest.raises(TimeoutError):
        worker.ask("compile", **request, timeout_seconds=0)
    assert list(worker.ask("compile", **request, timeout_seconds=60)["code"]) == request["targets"]


def test_compiler_tells_what_does_not_compile(worker: Worker) -> None:
    request = {
        "targets": ["contracts/Snippets.sol:Snippets"],
        "changed": {"contracts/Snippets.sol": "contract {"},
    }
    assert "ParserError" in worker.ask("compile", **request, timeout_seconds=60)["error"]


# ------------------------------------------------------------------------------------------------ choice


def test_order_depends_on_the_seed_alone() -> None:
    files = {"a": [_mutant(f"a{i}", "a") for i in range(30)], "b": [_mutant(f"b{i}", "b") for i in range(10)]}
    backwards = {name: found[::-1] for name, found in reversed(files.items())}
    assert drawn(files, 1) == drawn(backwards, 1)
    assert drawn(files, 1) != drawn(files, 2)


def test_any_beginning_of_the_order_holds_each_file_in_proportion() -> None:
    files = {
        name: [_mutant(f"{name}{i}", name) for i in range(size)] for name, size in (("a", 300), ("b", 100))
    }
    for length in (40, 100, 200):
        from_b = sum(m.file == "b" for m in drawn(files, 5)[:length])
        assert abs(from_b - length / 4) <= 1


def test_mutants_that_break_or_change_nothing_or_repeat_are_passed_over() -> None:
    codes = {"same": "0x00", "one": "0x01", "again": "0x01", "broken": None, "two": "0x02", "spare": "0x03"}
    chosen = _chosen(codes, 2)
    assert [m.id for m in chosen.taken] == ["one", "two"]
    assert (chosen.drawn, chosen.equal, chosen.repeated, chosen.broken) == (5, 1, 1, 1)


def test_choice_does_not_depend_on_which_build_ends_first() -> None:
    second_ended = threading.Event()

    def build(mutant: Mutant) -> Code:
        if mutant.id == "first":
            second_ended.wait(5)
        else:
            second_ended.set()
        return _code("0x01")

    with ThreadPoolExecutor(2) as pool:
        order = [_mutant("first"), _mutant("second")]
        *_, chosen = select(order, 2, build, lambda m: "", pool, 2)
    assert [m.id for m in chosen.taken] == ["first"]


def test_constructor_counts_as_a_difference() -> None:
    one, other = _code("0x0102"), _code("0x0202")
    assert fingerprint(one) != fingerprint(other) == fingerprint(_code("0x0202"))


def test_stages_ask_likely_suites_first_and_each_suite_in_the_end() -> None:
    files = [
        "escrow/Open",
        "escrow/Close",
        "vectors/Vectors",
        "x/Rebuilt",
        "attacks/Thief",
        "invariant/Campaign",
        "Gas",
    ]
    keys = {f"tests/contracts/{name}.t.sol:T": name for name in files}
    code = {key: {"bytecode": "0x01", "abi": SUITE_ABI} for key in keys}
    closures = {key.split(":")[0]: ["contracts/Escrow.sol"] if "Rebuilt" in key else [] for key in keys}
    found = stages(Base(code=code, closures=closures), _mutant("m", "contracts/Escrow.sol", "Escrow._open"))
    assert [(name, [keys[k] for k in suites]) for name, suites in found] == [
        ("function", ["escrow/Open"]),
        ("contract", ["escrow/Close", "escrow/Open"]),
        ("vectors", ["vectors/Vectors"]),
        ("others", ["escrow/Close", "escrow/Open"]),
        ("rebuilt", ["x/Rebuilt"]),
        ("attacks", ["attacks/Thief"]),
        ("campaign", ["invariant/Campaign"]),
    ]


# ------------------------------------------------------------------------------------------------ memory


def test_journal_keeps_verdicts_and_forgets_a_line_cut_short(tmp_path: Path) -> None:
    Journal(tmp_path / "code", tmp_path / "verdicts").add(_verdict("a", "test_A"))
    with (tmp_path / "verdicts").open("a") as out:
        out.write('{"id": "b", "kil')
    reopened = Journal(tmp_path / "code", tmp_path / "verdicts")
    assert reopened.verdicts() == {"a": _verdict("a", "test_A")}
    reopened.add(_verdict("c", ""))
    assert set(reopened.verdicts()) == {"a", "c"}


def test_journal_builds_each_mutant_once_even_one_that_does_not_compile(tmp_path: Path) -> None:
    journal, built = Journal(tmp_path / "code", tmp_path / "verdicts"), list[str]()
    for _ in range(2):
        assert journal.code("good", lambda: built.append("good") or _code("0x01")) == _code("0x01")
        assert journal.code("bad", lambda: built.append("bad")) is None
    assert built == ["good", "bad"]


# ------------------------------------------------------------------------------------------------ report


def test_unexplained_survivor_and_idle_explanations_are_faults() -> None:
    alive = [_mutant("explained"), _mutant("silent")]
    sampled, known = {"explained", "silent", "killed"}, {"explained", "silent", "killed", "not drawn"}
    listed = dict.fromkeys(("explained", "killed", "not drawn", "gone"), "equal by …")
    found = faults(alive, sampled, known, listed)
    assert [line.split(" f:")[0] for line in found] == [
        "unexplained: silent",
        "explained, but killed: killed",
        "explained, but gone: gone",
    ]


def test_report_counts_and_names_survivors(tmp_path: Path) -> None:
    selection = Selection(taken=[_mutant("a"), _mutant("b"), _mutant("c"), _mutant("d")], drawn=6, equal=2)
    verdicts = {
        v.id: v for v in (_verdict("a", "t"), _verdict("b", "t"), _verdict("c", "t"), _verdict("d", ""))
    }
    root = Path(__file__).resolve().parents[2]
    made = report(root, 7, selection, verdicts, {"d": "no test can tell"}, [])
    assert (made["seed"], made["sampled"], made["distinct"], made["killed"], made["score"]) == (
        7,
        6,
        4,
        3,
        75,
    )
    assert [(s["id"], s["reason"]) for s in made["survivors"]] == [("d", "no test can tell")]
    assert {f["name"]: f["met"] for f in made["figures"]} == {
        "mutants distinct in bytecode": False,
        "mutation score": False,
        "survivors explained": True,
    }


def test_committed_reasons_can_be_read_and_say_something() -> None:
    listed = reasons(Path(__file__).with_name("survivors.toml"))
    assert all(len(key) == 12 and len(reason.split()) >= 4 for key, reason in listed.items())


def _mutant(name: str, file: str = "f", function: str = "F.f") -> Mutant:
    return Mutant(
        id=name, file=file, function=function, line=1, operator="o", before="a", after="b", text="b"
    )


def _verdict(name: str, killed_by: str) -> Verdict:
    return Verdict(id=name, killed_by=killed_by, stage="others" if killed_by else "", seconds=1.5)


def _code(bytecode: str) -> Code:
    return {"contracts/F.sol:F": {"bytecode": bytecode, "deployedBytecode": "0x02"}}


def _chosen(codes: dict[str, str | None], count: int) -> Selection:
    def build(mutant: Mutant) -> Code | None:
        code = codes[mutant.id]
        return None if code is None else _code(code)

    with ThreadPoolExecutor(1) as pool:
        order = [_mutant(name) for name in codes]
        *_, chosen = select(order, count, build, lambda m: fingerprint(_code("0x00")), pool, 3)
    return chosen
