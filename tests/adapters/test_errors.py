"""Errors of adapters as values: what comes out of another process says what the first one said."""

from __future__ import annotations

import pickle

import pytest

from turnscope import Content, TurnscopeError
from turnscope_adapters.asgi import ClientDisconnected
from turnscope_adapters.mcp import ServerLost, ServerTimeout, ServerUnavailable, ToolError


@pytest.mark.parametrize(
    "error",
    [
        ServerUnavailable("gone", server="files", last_words="I am dying"),
        ServerLost("gone", server="files"),
        ServerTimeout("late", server="files"),
        ToolError("no", server="files", content=[Content(text="no")], code=-32602),
        ClientDisconnected(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_that_was_pickled_says_the_same(error: TurnscopeError) -> None:
    other = pickle.loads(pickle.dumps(error))
    assert type(other) is type(error)
    assert (str(other), other.args, vars(other)) == (str(error), error.args, vars(error))
