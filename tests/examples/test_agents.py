"""The examples of agents, run: on each event loop, and as the scripts that they are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import turnscope
from tests.examples import agent, agent_as_tool
from turnscope.testing import ScriptedModel

HERE = Path(__file__).parent


@pytest.mark.anyio
async def test_an_agent_answers_with_what_its_tools_said() -> None:
    model = ScriptedModel(agent.SCRIPT)  # a script is used up by one run
    result = await turnscope.run(agent.agent, "Weather in Beijing and Shanghai?", model=model)
    assert result.output == "sunny in Beijing and sunny in Shanghai"
    assert result.turns == 2
    assert model.requests[0].instructions == "Answer in one sentence."


@pytest.mark.anyio
async def test_an_agent_is_a_tool_of_another() -> None:
    result = await agent_as_tool.main()
    assert result.output == ("Found three letters about tea. Found three letters about silk.")
    assert [each.status for each in result.history.results] == ["ok", "ok"]


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("agent", "sunny in Beijing and sunny in Shanghai"),
        ("typed_answer", "refund True 2"),
        ("agent_as_tool", "Found three letters about tea. Found three letters about silk."),
    ],
)
def test_an_example_of_an_agent_runs_as_a_script(name: str, printed: str) -> None:
    done = subprocess.run(
        [sys.executable, str(HERE / f"{name}.py")],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.splitlines() == [printed]
    assert done.stderr == ""
