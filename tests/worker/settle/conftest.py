from typing import Any

import pytest

from tests.hardhat import chain, hardhat_node  # noqa: F401 - fixtures


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Lines the claimer logs as warnings."""
    from worker.settle import claims

    lines: list[dict[str, Any]] = []
    monkeypatch.setattr(
        claims.log, "warning", lambda event, **values: lines.append({"event": event} | values)
    )
    return lines
