"""The whole market as processes: started, used as the README says, hurt, stopped, started again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from marketplace.local import probes
from marketplace.local.child import marked
from marketplace.local.layout import Layout
from marketplace.local.market import Market
from marketplace.local.up import INTERRUPTED

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "build" / "models"
# Includes making the environment of scripts/run, the first time.
START_SECONDS = 400

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


class Demo:
    """The README's first command as a child process that tells what it does in JSON.

    It gets nothing of ours: another working directory, and no variable for Python or Wattline.
    """

    def __init__(self, data_dir: Path, *options: str) -> None:
        self.layout = Layout(data_dir)
        self._said = data_dir.with_suffix(".jsonl")
        command = [str(ROOT / "scripts" / "run"), "--data-dir", str(data_dir), "--json"]
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("WATT", "VIRTUAL_ENV", "PYTHON"))}
        with self._said.open("wb") as said:
            self.process = subprocess.Popen(
                [*command, "--models-dir", str(MODELS), *options],
                stdout=said,
                stderr=subprocess.STDOUT,
                env=kept,
                cwd="/",
            )

    def said(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._said.read_text().splitlines() if line.endswith("}")]

    def states(self) -> dict[str, str]:
        return {event["name"]: event["state"] for event in self.said() if event["event"] == "step"}

    def wait(self, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not true():
            assert self.process.poll() is None, self._said.read_text()
            assert time.monotonic() < deadline, self._said.read_text()
            time.sleep(0.3)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(120)

    def market(self) -> Market:
        return Market.load(self.layout.market)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """One market for all tests here; whatever they did to it, stopping it leaves nothing behind."""
    running = Demo(tmp_path_factory.mktemp("market") / "data", "--keep")
    try:
        running.wait(lambda: running.states().get("money") in ("ready", "failed"))
        yield running
        market, run_id = running.market(), running.layout.run.read_text()
        assert running.stop(signal.SIGINT) == 0
        assert marked(run_id) == []
        assert probes.http_json(f"{market.gateway_url}/livez") is None
        assert probes.rpc(market.rpc_url, "eth_chainId") is None
        assert not running.layout.market.exists()
        assert not running.layout.run.exists()
    finally:
        if running.process.poll() is None:
            running.stop(signal.SIGKILL)


def test_demonstration_buys_checks_and_pays_to_the_atom(demo: Demo) -> None:
    assert demo.states() == dict.fromkeys(
        (
            "chain",
            "broker",
            "gateway",
            "nodes",
            "buyer",
            "embedding",
            "text",
            "receipts",
            "settlement",
            "proof",
            "money",
        ),
        "ready",
    )
    receipts = [event["receipt"] for event in demo.said() if "receipt" in event]
    assert len(receipts) == 2
    assert all(Path(path).is_file() for path in receipts)
    (money,) = [e["detail"] for e in demo.said() if e.get("name") == "money" and e["state"] == "ready"]
    assert "equal to the atom" in money


def test_every_task_has_two_nodes(demo: Demo) -> None:
    rows = probes.http_json(f"{demo.market().gateway_url}/v1/models")["data"]
    assert {row["id"]: row["offers"] for row in rows} == {"smollm2-135m-instruct": 2, "all-minilm-l6-v2": 2}


def test_client_example_of_the_readme_runs(demo: Demo) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    market = demo.market()
    program = block.replace("http://127.0.0.1:8402", market.gateway_url).replace("sk-watt-…", market.api_key)
    assert program != block
    made = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert made.returncode == 0, made.stderr
    assert re.search(r"rcpt_\w+|0x[0-9a-f]+", made.stdout.splitlines()[-1])


def test_secrets_are_for_their_owner_only(demo: Demo) -> None:
    assert demo.layout.market.stat().st_mode & 0o777 == 0o600
    assert demo.layout.data_dir.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", ["node-3", "gateway"])
def test_killed_process_comes_back_and_so_do_its_offers(demo: Demo, name: str) -> None:
    before = demo.market()
    os.kill(before.processes[name].pid, signal.SIGKILL)
    demo.wait(lambda: demo.market().processes[name].pid != before.processes[name].pid)
    demo.wait(lambda: probes.not_ready(before.gateway_url) == [] and probes.offered(before.gateway_url) == 4)


def test_second_supervisor_of_a_folder_is_refused(demo: Demo) -> None:
    data_dir = str(demo.layout.data_dir)
    command = [sys.executable, "-m", "marketplace.local.demo", "--json", "--data-dir", data_dir]
    second = _done([*command, "--models-dir", str(MODELS)])
    assert second.returncode == 1
    assert "a market already runs from" in second.stdout


def test_killed_supervisor_is_cleaned_up_after_by_the_next_start(tmp_path: Path) -> None:
    killed = Demo(tmp_path / "data")
    killed.wait(lambda: killed.states().get("broker") == "ready")
    run_id = killed.layout.run.read_text()
    killed.stop(signal.SIGKILL)
    assert len(marked(f"{run_id}/chain")) == len(marked(f"{run_id}/broker")) == 1
    again = Demo(tmp_path / "data")
    again.wait(lambda: again.states().get("chain") == "ready")
    texts = [event["text"] for event in again.said() if event["event"] == "note"]
    assert any("killed run had left behind" in text for text in texts)
    assert any("The last run's chain is gone" in text for text in texts)
    assert marked(run_id) == []
    own = again.layout.run.read_text()
    assert again.stop() == INTERRUPTED
    assert marked(own) == []


def _done(command: list[str], **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=400, check=False, **more)
