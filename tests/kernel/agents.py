"""What the tests of runs share: agents with a script, calls for it, and what became of them.

`virtual_backend`, imported as `anyio_backend` into a test module, is for what no loop does in its
own way: virtual time on asyncio and trio, and no uvloop, which would wait in real time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.kernel.bodies import fine
from tests.support import VIRTUAL
from turnscope import Agent, History, Run, RunResult, ToolCall
from turnscope.testing import ScriptedModel, virtual_time


@pytest.fixture(name="anyio_backend", params=VIRTUAL)
def virtual_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Virtual time, on each loop that has it."""
    options = virtual_time(request.param)
    return options["backend"], options["backend_options"]


def asks(*functions: Callable[..., Any] | str, **arguments: Any) -> list[ToolCall]:
    """One answer of a model, which calls each of *functions*, all with the same arguments."""
    names = [getattr(each, "name", None) or getattr(each, "__name__", each) for each in functions]
    return [ToolCall(f"c{n}", str(name), arguments) for n, name in enumerate(names)]


def an_agent(*script: Any, tools: Any = (fine,), **fields: Any) -> Agent[Any, str]:
    """An agent whose model answers *script*."""
    return Agent(model=ScriptedModel(script), tools=tools, **fields)


def ends(history: History) -> list[str]:
    """How the calls of *history* settled, in its order; it must be one that can be sent."""
    assert History(history) == history  # checked anew: a provider accepts it
    assert History.from_json(history.to_json()) == history
    return [str(result.status) for result in history.results]


def contents(run: Run[Any] | RunResult[Any]) -> list[Any]:
    """What the model was told of its calls."""
    return [result.content for result in run.history.results]
