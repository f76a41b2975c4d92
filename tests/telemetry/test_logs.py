from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from marketplace.telemetry.logs import bound, get_logger, set_up


@pytest.fixture(autouse=True)
def _root_logger_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def fail(prompt: str) -> None:
    raise ValueError(f"boom of {len(prompt)}")


def lines(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_off_a_terminal_each_line_is_one_json_object() -> None:
    out = io.StringIO()
    set_up(stream=out)
    get_logger("watt.test").info("job_ordered", price_atoms=5, digest=b"\x01")
    (line,) = lines(out)
    assert line["event"] == "job_ordered"
    assert (line["price_atoms"], line["level"], line["logger"]) == (5, "info", "watt.test")
    assert line["timestamp"].endswith("Z")


def test_on_a_terminal_lines_are_for_people() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    set_up(stream=out)
    get_logger("watt.test").info("job_ordered", price_atoms=5)
    assert "job_ordered" in out.getvalue()
    assert not out.getvalue().startswith("{")


def test_bound_ids_are_in_every_line_below_and_none_after() -> None:
    out = io.StringIO()
    set_up(stream=out)
    log = get_logger("watt.test")
    with bound(trace_id="t1"), bound(job_id="j1"):
        log.info("one")
        logging.getLogger("some.library").warning("two %s", "words")
    log.info("three")
    one, two, three = lines(out)
    assert (one["trace_id"], one["job_id"]) == ("t1", "j1")
    assert (two["trace_id"], two["event"], two["logger"]) == ("t1", "two words", "some.library")
    assert "trace_id" not in three


def test_a_bound_logger_adds_its_values() -> None:
    out = io.StringIO()
    set_up(stream=out)
    get_logger("watt.test").bind(node_id=3).warning("node_refused")
    assert lines(out)[0]["node_id"] == 3


def test_lines_below_the_level_are_left_out() -> None:
    out = io.StringIO()
    set_up("warning", stream=out)
    get_logger("watt.test").info("quiet")
    logging.getLogger("web3").info("quiet too")
    get_logger("watt.test").error("loud")
    assert [line["event"] for line in lines(out)] == ["loud"]


def test_exceptions_are_in_the_line() -> None:
    out = io.StringIO()
    set_up(stream=out)
    try:
        fail("")
    except ValueError:
        get_logger("watt.test").exception("loop_failed")
    (line,) = lines(out)
    assert line["exception"][0]["exc_type"] == "ValueError"


@pytest.mark.parametrize("pretty", [True, False])
def test_tracebacks_never_show_local_variables(*, pretty: bool) -> None:
    out = io.StringIO()
    set_up(stream=out, pretty=pretty)
    prompt = "canary" + "-prompt"
    try:
        fail(prompt)
    except ValueError:
        get_logger("watt.test").exception("loop_failed")
        logging.getLogger("some.library").exception("also")
    assert "boom" in out.getvalue()
    assert prompt not in out.getvalue()


def test_secrets_and_prompts_are_hidden_by_name() -> None:
    out = io.StringIO()
    set_up(stream=out)
    get_logger("watt.test").info(
        "x", private_key="k1", api_key="k2", prompt="k3", Authorization="k4", node_id=1
    )
    assert not any(secret in out.getvalue() for secret in ("k1", "k2", "k3", "k4"))
    assert lines(out)[0]["node_id"] == 1


def test_setting_up_twice_does_not_write_twice() -> None:
    first, out = io.StringIO(), io.StringIO()
    set_up(stream=first)
    log = get_logger("watt.test")
    set_up(stream=out)
    log.info("once")
    assert first.getvalue() == ""
    assert len(lines(out)) == 1


def test_a_program_that_never_set_up_sees_no_info_lines() -> None:
    code = "from marketplace.telemetry.logs import get_logger; get_logger('x').info('hello')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
