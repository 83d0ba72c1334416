"""The server and the environment of the tests of Chat Completions, which speaks both protocols."""

from __future__ import annotations

from tests.adapters.openai.conftest import _no_keys as _no_keys
from tests.adapters.openai.conftest import server as server
from tests.adapters.openai.conftest import unhurried as unhurried
