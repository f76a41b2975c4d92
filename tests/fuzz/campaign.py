"""Sends cases to a gateway in a process of its own, judges every answer, and watches the process."""

from __future__ import annotations

import contextlib
import itertools
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TextIO

import requests

from tests.assure.figures import Figure, Part, digits
from tests.assure.report import ROOT
from tests.flow.node import chat_body
from tests.fuzz import cases, hostile
from tests.fuzz.cases import Call
from tests.fuzz.judge import SLOW_SECONDS, fault_of
from tests.fuzz.world import Dice, World

_STOP_SECONDS: Final = 30
_SHOWN: Final = 20
MOST_MIB: Final = 384
"""Most memory of the process, whatever it is sent: it starts at about 155 MiB."""


class Gateway:
    """A running `tests.fuzz.serving`, its log and its memory."""

    def __init__(self, child: subprocess.Popen[str], log: Path, state: dict[str, Any]) -> None:
        self._child, self._log, self.state = child, log, state
        self.url: str = state["url"]
        self.http = requests.Session()
        self.http.trust_env = False

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._child.poll() is None

    def peak_mib(self) -> float:
        """Most memory the process ever held, in MiB."""
        status = Path(f"/proc/{self._child.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024

    def said(self) -> list[str]:
        """Lines of its log that tell of a defect."""
        lines = self._log.read_text(errors="replace").splitlines()
        marks = ('"level": "error"', "Traceback")
        return [line[:2000] for line in lines if any(mark in line for mark in marks)]

    def chat(self) -> int:
        """Status of a plain call on a connection of its own, as from anybody who arrives now."""
        self.http.close()
        headers = {"authorization": f"Bearer {self.state['secret']}"}
        return self.http.post(
            f"{self.url}/v1/chat/completions", json=chat_body(), headers=headers
        ).status_code

    def send(self, call: Call) -> tuple[int, Any, bytes, float]:
        """Status, headers, body and seconds of one call."""
        began = time.monotonic()
        answer = self.http.request(
            call.method, self.url + call.path, params=call.query, headers=call.headers, allow_redirects=False,
            timeout=2 * SLOW_SECONDS, **call.content,
        )  # fmt: skip
        return answer.status_code, answer.headers, answer.content, time.monotonic() - began


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Gateway]:
    """A fresh gateway; its log is in the folder."""
    log = folder / "gateway.log"
    with log.open("w") as out:
        child = subprocess.Popen(
            (sys.executable, "-m", "tests.fuzz.serving"), cwd=ROOT, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=out,
        )  # fmt: skip
    try:
        assert child.stdout is not None
        line = child.stdout.readline()
        assert line, log.read_text()
        yield Gateway(child, log, json.loads(line))
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.communicate(timeout=_STOP_SECONDS)
        if child.poll() is None:
            child.kill()
            child.wait()


@dataclass
class Found:
    """What a run came to."""

    seed: int
    sent: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Errors by operation and code."""
    reached: Counter[str] = field(default_factory=Counter)
    """Successful answers by operation."""
    asked: Counter[str] = field(default_factory=Counter)
    faults: dict[tuple[str, str], str] = field(default_factory=dict)
    """First case of each kind of fault: how to send it again."""
    peak_before_mib: float = 0.0
    peak_after_mib: float = 0.0
    seconds: float = 0.0

    @property
    def failed(self) -> int:
        """Answers of 500 and above."""
        return sum(times for status, times in self.statuses.items() if status >= 500)

    def told(self) -> str:
        """Faults, one a paragraph."""
        return "\n\n".join(
            f"{name}: {what}\n  {how}" for (name, what), how in list(self.faults.items())[:_SHOWN]
        )


def run(gateway: Gateway, *, seed: int, count: int, log: TextIO | None = None) -> Found:
    """Sends all edges and then random cases, `count` in all."""
    schema, world, found = cases.page(), World(gateway.state), Found(seed)
    found.peak_before_mib, began = gateway.peak_mib(), time.monotonic()
    wanted = itertools.chain(cases.edges(schema), cases.drawn(schema, seed))
    for number, case in enumerate(wanted):
        if found.sent >= count or not gateway.alive:
            break
        call = cases.dressed(case, world, Dice(seed * 1_000_003 + number))
        one(gateway, world, call, found)
        if log is not None and found.sent % 1000 == 0:
            print(f"{found.sent} sent, {len(found.faults)} kinds of fault", file=log, flush=True)
    if not gateway.alive:
        found.faults["process", "ended"] = "see its log"
    for line in gateway.said():
        found.faults["log", line[-200:]] = line
    found.peak_after_mib, found.seconds = (
        gateway.peak_mib() if gateway.alive else 0.0,
        time.monotonic() - began,
    )
    return found


def one(gateway: Gateway, world: World, call: Call, found: Found) -> None:
    """Sends one call and judges the answer."""
    try:
        status, headers, body, seconds = gateway.send(call)
    except (requests.exceptions.InvalidHeader, requests.exceptions.InvalidURL, UnicodeError):
        return  # this client cannot say it
    except requests.exceptions.RequestException as error:
        found.sent += 1
        found.faults.setdefault(
            (call.operation, f"no answer: {type(error).__name__}"), f"{call.curl()}\n  {error}"
        )
        return
    found.sent += 1
    found.statuses[status] += 1
    found.asked[call.operation] += 1
    if status < 400:
        found.reached[call.operation] += 1
        if call.operation == "POST /v1/jobs":
            world.ordered()
    else:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            found.refused[call.operation, json.loads(body)["code"]] += 1
    world.learn(body.decode(errors="replace"), headers)
    fault = fault_of(call.path, status, headers, body, seconds)
    if fault is not None:
        found.faults.setdefault((call.operation, fault[:120]), f"{call.curl()}\n  {fault}")


@dataclass
class Hurt:
    """What one hostile body, sent many times at once, came to."""

    name: str
    statuses: Counter[int]
    fault: str
    """What was wrong; empty when nothing was."""
    peak_mib: float


def hurt(gateway: Gateway) -> list[Hurt]:
    """Sends every hostile body; after each, the gateway must serve as before."""
    port = int(gateway.url.rpartition(":")[2])
    return [_hurt(gateway, port, attack) for attack in hostile.attacks()]


def _hurt(gateway: Gateway, port: int, attack: hostile.Attack) -> Hurt:
    statuses = Counter(hostile.sent(port, gateway.state["secret"], attack))
    fault = ""
    # A connection may be cut while a body is refused that has not ended; not every one, though.
    if not set(statuses) <= attack.said | {0} or statuses[0] > hostile.AT_ONCE // 2:
        fault = f"answered {dict(statuses)}"
    elif not gateway.alive:
        fault = "the process ended"
    elif (status := gateway.chat()) != 200:
        fault = f"a plain call afterwards was answered {status}"
    return Hurt(attack.name, statuses, fault, gateway.peak_mib() if gateway.alive else 0.0)


def parts_of(found: Found, hurts: list[Hurt], count: int) -> list[Part]:
    """Both as figures with their goals."""
    told = tuple(f"{name}: {what}" for name, what in found.faults)[:_SHOWN]
    failed = [one for one in hurts if one.fault]
    return [
        Part(
            name="openapi",
            seconds=found.seconds,
            figures=(
                Figure(name="cases", value=found.sent, goal=f"≥ {count}"),
                Figure(name="answers of 500 and above", value=found.failed, goal="= 0"),
                Figure(name="kinds of fault of any sort", value=len(found.faults), goal="= 0", why=told),
                Figure(name="operations", value=len(found.asked)),
                Figure(name="operations that also succeeded", value=len(found.reached)),
                Figure(
                    name="peak memory", value=digits(found.peak_after_mib), unit="MiB", goal=f"≤ {MOST_MIB}"
                ),
                Figure(name="memory at the start", value=digits(found.peak_before_mib), unit="MiB"),
                Figure(name="seed", value=found.seed),
            ),
        ),
        Part(
            name="hostile",
            seconds=0,
            figures=(
                Figure(name="bodies, each many times at once", value=len(hurts), goal="≥ 14"),
                Figure(name="times at once", value=hostile.AT_ONCE),
                Figure(
                    name="not refused as they should be",
                    value=len(failed),
                    goal="= 0",
                    why=tuple(f"{one.name}: {one.fault}" for one in failed),
                ),
                Figure(
                    name="peak memory",
                    value=digits(max(one.peak_mib for one in hurts)),
                    unit="MiB",
                    goal=f"≤ {MOST_MIB}",
                ),
            ),
        ),
    ]
