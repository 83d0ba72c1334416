"""What a server lists and answers, as Tools and their results."""

from __future__ import annotations

from typing import Any

import pytest

from tests.adapters.mcp.serving import Odd, result, results
from turnscope import Agent, Content, Kernel, Status, ToolCall
from turnscope.events import CallProgress
from turnscope.testing import ScriptedModel
from turnscope_adapters.mcp import ToolError

pytestmark = pytest.mark.anyio


async def test_each_tool_of_each_page_is_a_tool_with_its_schema_and_hints(
    odd: Odd, caplog: pytest.LogCaptureFixture
) -> None:
    async with odd.server(timeout=7, idle_timeout=3, limit="odd") as server:
        tools = {tool.name: tool for tool in await server.tools()}
    echo, look, set_ = tools["echo"], tools["look"], tools["set"]
    assert echo.description == "Say it." and look.description == "Look around"
    assert echo.schema["required"] == ["text"]
    assert (echo.timeout, echo.idle_timeout, echo.limit) == (7, 3, "odd")
    # What says nothing may do anything; what only reads can destroy nothing, whatever it says.
    assert (echo.read_only, echo.idempotent, echo.destructive) == (False, False, True)
    assert (look.read_only, look.early, look.destructive) == (True, True, False)
    assert (set_.read_only, set_.idempotent, set_.destructive) == (False, True, False)
    assert "old" in tools  # of the second page
    # Names that models do not take, and schemas that point elsewhere.
    assert {"a_b", "a_b_2"} <= tools.keys() and "elsewhere" not in tools
    assert "'elsewhere' of server 'odd' is left out" in caplog.text


async def test_the_hints_of_a_server_that_is_not_trusted_are_not_believed(odd: Odd) -> None:
    async with odd.server(trusted=False) as server:
        tools = {tool.name: tool for tool in await server.tools()}
    assert not any(tool.read_only or tool.idempotent or tool.early for tool in tools.values())
    assert all(tool.destructive for tool in tools.values())


async def test_a_server_without_tools_has_none(odd: Odd) -> None:
    async with odd.server("toolless") as server:
        assert await server.tools() == []


async def test_a_name_that_models_do_not_take_asks_for_the_real_one(odd: Odd) -> None:
    async with odd.server() as server:
        tools = await server.tools()
        slash, underscore = await results(tools, ("a_b", {}), ("a_b_2", {}))
    assert (slash.value, underscore.value) == ("a/b was called", "a_b was called")


async def test_arguments_are_checked_before_the_server_is_asked(odd: Odd) -> None:
    async with odd.server() as server:
        wrong = await result(await server.tools(), "echo", text=1)
        assert wrong.status is Status.INVALID and "text" in str(wrong.content)
        assert odd.received("tools/call") == []


async def test_parts_of_every_kind_become_content(odd: Odd) -> None:
    async with odd.server() as server:
        parts = (await result(await server.tools(), "parts")).content
    pixel = b"\x89PNG\r\n\x1a\n"
    assert parts == (
        Content(text="here:"),
        Content(media_type="image/png", data=pixel),
        Content(media_type="audio/wav", data=pixel),
        Content(text="[resource file:///a (a, text/csv)]"),
        Content(text="[resource file:///b]"),
        Content(media_type="text/html", text="<p>"),
        Content(text="[resource file:///c]"),
        Content(media_type="application/octet-stream", data=pixel),
    )


async def test_structured_results_are_data_and_nothing_of_them_is_dropped(odd: Odd) -> None:
    async with odd.server() as server:
        calls = [(name, {}) for name in ("data", "wrapped", "odd_data")]
        data, wrapped, both = await results(await server.tools(), *calls)
    assert (data.value, data.content) == ({"n": 1}, '{"n":1}')
    assert (wrapped.value, wrapped.content) == ([1, 2], "[1,2]")
    json = Content(media_type="application/json", text='{"n": 1}')
    assert both.content == (Content(text="about one"), json)


async def test_a_tool_that_fails_says_so_in_the_words_of_the_server(odd: Odd) -> None:
    async with odd.server() as server:
        tools = await server.tools()
        failed, refused = await results(tools, ("fail", {}), ("refuse", {}))
    assert (failed.status, failed.content) == (Status.FAILED, "no such file\ntry another")
    assert isinstance(failed.error, ToolError) and failed.error.code is None
    assert failed.error.content == (Content(text="no such file"), Content(text="try another"))
    assert (refused.status, refused.content) == (Status.FAILED, "no tool of that name")
    assert isinstance(refused.error, ToolError) and refused.error.code == -32602


async def test_progress_comes_in_order_and_all_of_it_before_the_result(odd: Odd) -> None:
    seen: list[Any] = []

    class Watch:
        def observe(self, event: object) -> None:
            if isinstance(event, CallProgress):
                seen.append(event.value)

    async with odd.server() as server:
        done = await results(await server.tools(), ("slow", {"steps": 50}), observers=[Watch()])
    assert done[0].ok
    assert seen == [{"progress": step, "message": f"step {step}"} for step in range(1, 51)]


async def test_progress_keeps_a_call_alive_and_silence_ends_it(odd: Odd) -> None:
    async with odd.server(idle_timeout=1.5) as server:
        tools = await server.tools()
        lively = await result(tools, "slow", steps=8, pause=0.25)
        silent = await result(tools, "hang")
    assert lively.status is Status.OK and silent.status is Status.TIMED_OUT
    assert lively.ended_at - (lively.started_at or 0) > 1.5


async def test_a_changed_list_gives_new_tools_and_old_ones_fail_in_the_servers_words(
    odd: Odd,
) -> None:
    async with odd.server() as server:
        before = await server.tools()
        await result(before, "change")
        after = await server.tools()
        names = {tool.name for tool in after}
        assert "new" in names and "old" not in names
        assert (await result(after, "new")).value == "new was called"
        gone = await result(before, "old")
        assert (gone.status, gone.content) == (Status.FAILED, "no tool of that name")


async def test_two_servers_with_tools_of_one_name_work_side_by_side_by_prefix(
    odd: Odd, tmp_path: Any
) -> None:
    other = Odd(tmp_path / "other")
    async with odd.server(prefix="one_") as first, other.server(prefix="two.") as second:
        tools = [*await first.tools(), *await second.tools()]
        with pytest.raises(ValueError, match="echo"):
            Agent(model=ScriptedModel([]), tools=[*await first.tools(), *await first.tools()])
        model = ScriptedModel(
            [
                [
                    ToolCall("c1", "one_echo", {"text": "a"}),
                    ToolCall("c2", "two.echo", {"text": "b"}),
                ],
                lambda request: "".join(str(each.content) for each in request.history.results),
            ]
        )
        async with Kernel() as kernel:
            assert (await kernel.run(Agent(model=model, tools=tools), "?")).output == "ab"
    assert [len(each.received("tools/call")) for each in (odd, other)] == [1, 1]
