"""Tools of LangChain's in turns of ours, and tools of ours where LangChain invokes them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Annotated, Any

import anyio
import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages.tool import ToolOutputMixin
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import (
    BaseTool,
    InjectedToolArg,
    InjectedToolCallId,
    StructuredTool,
    ToolException,
)
from langchain_core.tools import Tool as SingleInput
from langchain_core.tools import tool as langchain_tool

from tests.support import Loop
from turnscope import Agent, CallContext, Content, Kernel, Limits, ToolCall, ToolResult, tool
from turnscope.events import CallProgress, RunEvent
from turnscope.testing import ScriptedModel
from turnscope_adapters.langchain import from_langchain, to_langchain

ON_ASYNCIO = "an async tool of LangChain's, which runs on asyncio alone"


@langchain_tool
def shout(words: str, times: int = 1) -> str:
    """Say it loudly."""
    return words.upper() * times


@langchain_tool
async def whisper(words: str) -> str:
    """Say it quietly."""
    await anyio.sleep(0)
    return words.lower()


def ran(
    loop: Loop, tools: list[Any], *calls: tuple[str, dict[str, Any]], **kernel: Any
) -> tuple[ToolResult, ...]:
    async def main() -> tuple[ToolResult, ...]:
        async with Kernel(**kernel) as opened, opened.turn(tools) as turn:
            for index, (name, arguments) in enumerate(calls):
                turn.submit(ToolCall(f"c{index}", name, arguments))
        return turn.results

    return loop.run(main)


def test_name_description_and_schema_are_langchains() -> None:
    made = from_langchain(shout, timeout=3, read_only=True)
    assert (made.name, made.description) == ("shout", "Say it loudly.")
    assert made.schema["properties"] == {
        "words": {"type": "string"},
        "times": {"type": "integer", "default": 1},
    }
    assert made.schema["required"] == ["words"]
    assert made.timeout == 3
    assert made.read_only and made.early
    assert from_langchain(shout, name="cry").name == "cry"


def test_a_def_runs_in_a_thread_and_an_async_def_in_the_event_loop(any_loop: Loop) -> None:
    tools = [from_langchain(shout), from_langchain(whisper)]
    loud, quiet = ran(
        any_loop, tools, ("shout", {"words": "a", "times": 2}), ("whisper", {"words": "B"})
    )
    assert (loud.content, loud.backend) == ("AA", "thread")
    assert quiet.backend == "inline"
    if any_loop.name == "trio":
        assert ON_ASYNCIO in str(quiet.error)
    else:
        assert quiet.content == "b"


def test_arguments_that_do_not_fit_are_told_to_the_model(any_loop: Loop) -> None:
    (result,) = ran(any_loop, [from_langchain(shout)], ("shout", {"times": "no"}))
    assert result.status == "invalid"
    assert "words: missing" in str(result.content)


@pytest.mark.parametrize(
    ("handled", "content"),
    [(False, "ToolException: not today"), ("Sorry.", "ToolException: Sorry.")],
)
def test_what_it_raises_and_what_it_makes_of_that_are_failures(
    handled: bool | str, content: str, any_loop: Loop
) -> None:
    def refuse(day: str) -> str:
        raise ToolException(f"not {day}")

    theirs = StructuredTool.from_function(refuse, description="Refuse.", handle_tool_error=handled)
    (result,) = ran(any_loop, [from_langchain(theirs)], ("refuse", {"day": "today"}))
    assert (result.status, result.content) == ("failed", content)
    assert isinstance(result.error, ToolException)


def test_parts_come_as_parts_and_an_artifact_as_progress(any_loop: Loop) -> None:
    @langchain_tool(response_format="content_and_artifact")
    def draw(what: str) -> tuple[list[Any], dict[str, int]]:
        """Draw it."""
        blocks = [
            {"type": "text", "text": what},
            {"type": "image", "base64": "aGk=", "mime_type": "image/png"},
            {"type": "image_url", "image_url": {"url": "https://host/cat.png"}},
            {"type": "json", "json": {"a": 1}},
        ]
        return blocks, {"strokes": 7}

    class Watcher:
        def __init__(self) -> None:
            self.told: list[object] = []

        def observe(self, event: RunEvent) -> None:
            if isinstance(event, CallProgress):
                self.told.append(event.value)

    watcher = Watcher()
    (result,) = ran(
        any_loop, [from_langchain(draw)], ("draw", {"what": "a cat"}), observers=[watcher]
    )
    text, image, link, rest = result.content
    assert text == Content(text="a cat")
    assert image == Content(media_type="image/png", data=b"hi")
    assert isinstance(link, Content) and link.url == "https://host/cat.png"
    assert isinstance(rest, Content) and '"a": 1' in str(rest.text)
    assert watcher.told == [{"strokes": 7}]


def test_the_id_of_the_call_the_config_and_callbacks_are_given(any_loop: Loop) -> None:
    class Handler(BaseCallbackHandler):
        def __init__(self) -> None:
            self.names: list[str] = []

        def on_tool_start(self, serialized: dict[str, Any], input_str: str, **more: Any) -> None:
            self.names.append(serialized["name"])

    def trace(
        words: str, config: RunnableConfig, call_id: Annotated[str, InjectedToolCallId]
    ) -> str:
        assert "callbacks" in config
        return f"{words} {call_id}"

    handler = Handler()
    theirs = StructuredTool.from_function(trace, description="Trace.", callbacks=[handler])
    (result,) = ran(any_loop, [from_langchain(theirs)], ("trace", {"words": "for"}))
    assert result.content == "for c0"
    assert handler.names == ["trace"]


def test_a_tool_of_one_input_without_a_schema_works(any_loop: Loop) -> None:
    theirs = SingleInput("ask", lambda query: f"{query}?", "Ask.")
    made = from_langchain(theirs)
    (argument,) = made.schema["properties"]
    (result,) = ran(any_loop, [made], ("ask", {argument: "why"}))
    assert result.content == "why?"


def test_a_class_of_ones_own_works_and_its_arun_is_preferred(any_loop: Loop) -> None:
    class Double(BaseTool):
        name: str = "double"
        description: str = "Double it."

        def _run(self, n: int) -> int:
            return 2 * n

    class AsyncDouble(Double):
        name: str = "async_double"

        async def _arun(self, n: int) -> int:
            await anyio.sleep(0)
            return 2 * n

    tools = [from_langchain(Double()), from_langchain(AsyncDouble())]
    plain, awaited = ran(any_loop, tools, ("double", {"n": 2}), ("async_double", {"n": 3}))
    assert (plain.content, plain.backend) == ("4", "thread")
    assert awaited.backend == "inline"
    assert any_loop.name == "trio" or awaited.content == "6"


def test_what_wants_the_state_of_a_graph_is_refused_by_name() -> None:
    def look(words: str, state: Annotated[dict[str, Any], InjectedToolArg]) -> str:
        return words

    theirs = StructuredTool.from_function(look, description="Look.")
    with pytest.raises(TypeError, match=r"'look' wants 'state' of the graph .* CallContext\.deps"):
        from_langchain(theirs)


def test_what_is_no_tool_of_langchains_is_refused() -> None:
    with pytest.raises(TypeError, match="takes a LangChain tool, not function"):
        from_langchain(lambda: None)  # type: ignore[arg-type]  # wrong on purpose


def test_what_steers_a_graph_is_refused_when_it_comes(any_loop: Loop) -> None:
    class Command(ToolOutputMixin):
        """As LangGraph's."""

    def steer() -> Any:
        return Command()

    theirs = StructuredTool.from_function(steer, description="Steer.")
    (result,) = ran(any_loop, [from_langchain(theirs)], ("steer", {}))
    assert result.status == "failed"
    assert "returned a Command, which steers a graph" in str(result.content)


def test_a_cancelled_tool_of_langchains_ends_with_its_cleanup() -> None:
    ended: list[str] = []

    async def wait(n: int) -> str:
        try:
            await anyio.sleep(60)
        finally:
            await anyio.sleep(0.01)
            ended.append("cleaned")
        return "never"

    theirs = StructuredTool.from_function(coroutine=wait, name="wait", description="Wait.")
    made = from_langchain(theirs, timeout=0.05)
    # In virtual time, for LangChain takes longer than that until it calls its tool.
    (result,) = ran(Loop("asyncio", virtual=True), [made], ("wait", {"n": 1}))
    assert result.status == "timed_out"
    assert ended == ["cleaned"]


def test_an_agent_runs_them(any_loop: Loop) -> None:
    agent = Agent(tools=[from_langchain(shout)])
    script = ScriptedModel([[ToolCall("c", "shout", '{"words": "hey"}')], "done"])

    async def main() -> Any:
        async with Kernel(model=script) as kernel:
            return await kernel.run(agent, "Go.")

    result = any_loop.run(main)
    assert result.output == "done"
    assert [message.content for message in result.history if hasattr(message, "status")] == ["HEY"]


# Ours, invoked by LangChain, which does so on asyncio alone.


def invoked(tools: list[Any], use: Callable[[list[StructuredTool]], Any], **options: Any) -> Any:
    loop = Loop("asyncio", virtual=options.pop("virtual", False))

    async def main() -> Any:
        async with Kernel(limits=options.pop("limits", Limits())) as kernel:
            return await use([to_langchain(each, kernel, **options) for each in tools])

    return loop.run(main)


@tool
async def follow(n: int, context: CallContext[int]) -> int:
    """Say what comes after *n*."""
    if n < 0:
        raise ValueError("nothing does")
    return n + (context.deps or 1)


def asked(n: object) -> dict[str, Any]:
    return {"type": "tool_call", "id": "x", "name": "follow", "args": {"n": n}}


def test_langchain_sees_our_schema_and_gets_our_answer() -> None:
    async def use(tools: list[StructuredTool]) -> Any:
        (ours,) = tools
        assert (ours.name, ours.description) == ("follow", "Say what comes after *n*.")
        schema: Any = ours.tool_call_schema
        assert schema["properties"] == {"n": {"type": "integer"}}
        return await ours.ainvoke({"n": 4}), await ours.ainvoke(asked(4))

    plain, message = invoked([follow], use, deps=10)
    assert plain == "14"
    assert (message.content, message.tool_call_id, message.status) == ("14", "x", "success")
    assert message.artifact.value == 14


@pytest.mark.parametrize(
    ("n", "words"), [(-1, "ValueError: nothing does"), ("z", "n: expected an integer")]
)
def test_a_call_that_is_not_ok_is_an_error_for_their_model(n: object, words: str) -> None:
    message = invoked([follow], lambda tools: tools[0].ainvoke(asked(n)))
    assert message.status == "error"
    assert words in message.content


def test_calls_of_one_kernel_share_its_limits() -> None:
    at_once: list[int] = []
    busy = threading.Semaphore(2)

    @tool(limit="db")
    def query() -> str:
        """Query."""
        assert busy.acquire(blocking=False), "more than two at once"
        at_once.append(1)
        threading.Event().wait(0.01)
        busy.release()
        return "row"

    async def use(tools: list[StructuredTool]) -> None:
        async with anyio.create_task_group() as group:
            for _ in range(6):
                group.start_soon(tools[0].ainvoke, {})

    invoked([query], use, limits=Limits(groups={"db": 2}))
    assert len(at_once) == 6


def test_a_timeout_ends_the_call_and_images_come_as_blocks() -> None:
    @tool
    async def paint() -> list[Content]:
        """Paint."""
        return [Content(text="a cat"), Content(media_type="image/png", data=b"hi")]

    @tool
    async def stall() -> str:
        """Stall."""
        await anyio.sleep(60)
        return "never"

    async def use(tools: list[StructuredTool]) -> Any:
        return await tools[0].ainvoke({}), await tools[1].ainvoke(
            {"type": "tool_call", "id": "x", "name": "stall", "args": {}}
        )

    blocks, late = invoked([paint, stall], use, timeout=0.1, virtual=True)
    assert blocks == [
        {"type": "text", "text": "a cat"},
        {"type": "image", "mime_type": "image/png", "base64": "aGk="},
    ]
    assert late.status == "error"
    assert "was interrupted by the deadline of its turn" in late.content
