"""An agent that answers with a value of a type: what does not fit goes back to the model."""

from __future__ import annotations

from typing import Literal

import anyio
import attrs

import turnscope
from turnscope import Agent, ToolCall
from turnscope.testing import ScriptedModel


@attrs.frozen
class Ticket:
    """What a letter is about."""

    topic: Literal["refund", "repair", "other"]
    urgent: bool = False


SCRIPT = [
    [ToolCall("c1", "final_answer", {"topic": "money"})],  # sent back: no such topic
    [ToolCall("c2", "final_answer", {"topic": "refund", "urgent": True})],
]
agent = Agent(model=ScriptedModel(SCRIPT), output=Ticket, instructions="Sort the letter.")

if __name__ == "__main__":
    result = anyio.run(turnscope.run, agent, "I want my money back, now!")
    print(result.output.topic, result.output.urgent, result.turns)
