from __future__ import annotations

from tests.client.conftest import market  # noqa: F401 - fixture
