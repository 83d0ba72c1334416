"""One aimock for the tests of each file, and an environment that has no key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.adapters.aimock.serving import AIMock
from tests.adapters.anthropic.conftest import _no_keys as _no_keys_of_anthropic
from tests.adapters.openai.conftest import _no_keys as _no_keys_of_openai

__all__ = ["_no_keys_of_anthropic", "_no_keys_of_openai"]


# Not for the session: other tests look whether this process has any child left.
@pytest.fixture(scope="module")
def aimock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AIMock]:
    with closing(AIMock(tmp_path_factory.mktemp("aimock"))) as running:
        yield running
