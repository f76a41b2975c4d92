"""Those who cheat do not see how they are found out, and are not asked what limits were made of."""

from __future__ import annotations

import ast
from pathlib import Path

from marketplace.protocol.hexes import to_hex
from tests.bench.cheats.__main__ import questions
from worker.audit.calibrate import requests

HERE = Path(__file__).parent
DETECTORS = (
    "worker.audit",
    "worker.inference.replayer",
    "worker.proofs.calibration",
    "worker.proofs.margins",
    "worker.proofs.replay",
    "worker.proofs.verdict",
)


def test_cheating_nodes_import_no_detector() -> None:
    tree = ast.parse((HERE / "nodes.py").read_text())
    named = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    named += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    assert "worker.proofs.trace" in named
    assert not [name for name in named if name.startswith(DETECTORS)]


def test_prompts_and_seeds_are_held_out() -> None:
    model = to_hex(bytes(32))
    asked, made = questions(model, 1000, 32), requests(model, 1000, 32)
    assert not {one.messages for one in asked} & {one.messages for one in made}
    assert not {one.seed for one in asked} & {one.seed for one in made}
    assert len({one.seed for one in asked}) == len(asked)
