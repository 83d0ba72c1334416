"""What a model may write that no provider takes back: halves of characters, and white space alone."""

from __future__ import annotations

import pytest

from turnscope import (
    Agent,
    AssistantMessage,
    Content,
    History,
    Kernel,
    ToolCall,
    UserMessage,
    tool,
)
from turnscope.events import CallDelta, ModelFinished, ReasoningDelta, TextDelta
from turnscope.testing import ScriptedModel, Stream


@tool
async def echo(text: str = "") -> str:
    return text


@pytest.mark.anyio
async def test_a_character_that_the_server_cut_in_two_is_whole_in_the_history() -> None:
    answer = Stream([(0, TextDelta("\ud83d")), (0, TextDelta("\ude00!")), (0, ModelFinished())])
    async with Kernel() as kernel:
        result = await kernel.run(Agent(model=ScriptedModel([answer])), "?")
    assert result.output == "😀!"
    assert History.from_json(result.history.to_json().encode()) == result.history


@pytest.mark.anyio
async def test_half_a_character_in_a_call_leaves_a_history_that_can_be_sent() -> None:
    asks = [
        (0, ReasoningDelta("\ud83d")),
        (0, CallDelta(0, "c\ud83d", "echo", '{"text": "\ud83d"}')),
        (0, CallDelta(1, "c1", "ech\ud83d", "\ud83d")),
        (0, ModelFinished("calls")),
    ]
    agent = Agent(model=ScriptedModel([Stream(asks), "done"]), tools=[echo])
    async with Kernel() as kernel:
        result = await kernel.run(agent, "?")
    result.history.to_json().encode()
    assert [each.status for each in result.history.results] == ["ok", "invalid"]


@pytest.mark.anyio
async def test_an_answer_of_white_space_is_an_output_but_no_message() -> None:
    async with Kernel() as kernel:
        result = await kernel.run(Agent(model=ScriptedModel([" \n"])), "?")
    assert result.output == " \n"
    assert result.history[:] == (UserMessage("?"),)


def test_a_history_refuses_an_answer_of_white_space() -> None:
    with pytest.raises(ValueError, match="neither text nor calls"):
        History([UserMessage("?"), AssistantMessage(text=" ")])
    History([UserMessage("?"), AssistantMessage(text="."), UserMessage("?")])


@pytest.mark.anyio
async def test_white_space_beside_calls_is_kept() -> None:
    model = ScriptedModel([[" ", ToolCall("c", "echo", {})], "done"])
    async with Kernel() as kernel:
        result = await kernel.run(Agent(model=model, tools=[echo]), "?")
    assert isinstance(answer := result.history[1], AssistantMessage)
    assert (answer.text, len(answer.calls)) == (" ", 1)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "prompt", ["", " \n", [], [Content(text="")], [Content(text=" "), Content(text="\t")]]
)
async def test_a_prompt_that_says_nothing_is_refused_before_any_request(
    prompt: str | list[Content],
) -> None:
    model = ScriptedModel(["?"])
    async with Kernel() as kernel:
        with pytest.raises(ValueError, match="the prompt is empty"):
            await kernel.run(Agent(model=model), prompt)
    assert model.requests == []


def test_a_history_refuses_a_prompt_of_white_space() -> None:
    with pytest.raises(ValueError, match="empty prompt"):
        History([UserMessage(" ")])
    History([UserMessage((Content(text=" "), Content(media_type="image/png", data=b"")))])


@pytest.mark.anyio
async def test_half_a_character_in_a_prompt_leaves_a_history_that_can_be_sent() -> None:
    prompts: list[str | list[Content]] = [
        "caf\udce9",
        [Content(text="caf\udce9"), Content(url="https://example.org/a.png")],
    ]
    async with Kernel() as kernel:
        for prompt in prompts:
            result = await kernel.run(Agent(model=ScriptedModel(["ok"])), prompt)
            assert result.history.to_json().encode()
