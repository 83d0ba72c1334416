"""The benchmark's tests wait for less: what its tools sleep is cut to a fraction."""

from __future__ import annotations

import pytest

from bench import tools
from bench.conversations import Streamed


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {
        "STREAM": 0.1,
        "LOOK": 0.05,
        "PAUSE": 0.005,
        "REST": 0.005,
        "BLOCK": 0.01,
    }.items():
        monkeypatch.setattr(tools, name, seconds)
    monkeypatch.setattr(Streamed, "AT", (0.01, 0.02, 0.03, 0.04))
