"""One server for all tests of this folder, and an environment that has no key."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.adapters.openai.conftest import unhurried as unhurried
from tests.adapters.openai.server import ChatServer


@pytest.fixture(scope="session")
def server() -> Iterator[ChatServer]:
    with ChatServer() as running:
        yield running


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_AUTH_TOKEN",
        "ANTHROPIC_BASE_URL",
        "ANTHROPIC_CUSTOM_HEADERS",
        "HTTP_PROXY",
        "http_proxy",
        "ALL_PROXY",
        "all_proxy",
    ):
        monkeypatch.delenv(name, raising=False)
