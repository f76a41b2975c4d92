"""The contenders of `scripts/bench-node` do the same work; how fast is measured elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.bench import node, node_load, node_runs


def test_everybody_writes_the_same_number_of_tokens(tmp_path: Path) -> None:
    found = node_load.model("15M fp32", tmp_path)
    requests = node_load.requests(found, 3, answers=(2, 5), prompts=(3, 9))
    wanted = sum(request.max_tokens for request in requests)
    with node_runs.engine(found) as ours, node_runs.network(found) as network:
        runs = {
            "ours": ours,
            "one by one": node_runs.one_by_one(network),
            "continuous": node_runs.continuous(network, 32, 256),
        }
        assert {name: run(requests) for name, run in runs.items()} == dict.fromkeys(runs, wanted)
        assert all(rate > 0 for rate in node._alternate({"ours": (ours, requests)}, 1).values())


@pytest.mark.model
def test_both_ways_embed_every_text() -> None:
    single, sorted_ = node_runs.embedders(torch.float32)
    texts = node_load.texts(9)
    assert single(texts) == sorted_(texts) == 9
