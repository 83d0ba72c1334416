"""One server for all tests of this folder, and an environment that has no key."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.adapters.openai.server import SECONDS, ChatServer
from turnscope_adapters import _http


@pytest.fixture(scope="session")
def server() -> Iterator[ChatServer]:
    with ChatServer() as running:
        yield running


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "OPENAI_API_KEY",
        "OPENAI_BASE_URL",
        "HTTP_PROXY",
        "http_proxy",
        "ALL_PROXY",
        "all_proxy",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers may take as long as they like from their last event to their end.

    For tests that count connections: one whose answer does not end soon is rightly closed.
    """
    monkeypatch.setattr(_http, "_LINGER", SECONDS)
