"""A server that hangs, dies, lies or will not go: a typed error, in time, and nothing left of it."""

from __future__ import annotations

import asyncio
import logging
import sys
import time

import anyio
import pytest

from tests.adapters.mcp.serving import (
    PATIENT,
    SECONDS,
    Odd,
    eventually,
    group,
    left_of,
    result,
    results,
)
from turnscope import Kernel, Status, ToolCall
from turnscope.events import CallStarted
from turnscope_adapters.mcp import (
    MCPServer,
    ServerError,
    ServerLost,
    ServerTimeout,
    ServerUnavailable,
    ToolError,
)

pytestmark = pytest.mark.anyio


async def test_a_program_that_is_not_there_is_told_by_its_name() -> None:
    server = MCPServer.stdio(["/no/such/server", "--key", "secret"])
    with pytest.raises(
        ServerUnavailable, match=r"'server' could not be started: /no/such/server: No such"
    ):
        async with server:
            pass
    assert "secret" not in repr(server)


async def test_a_server_that_dies_at_start_is_told_with_its_exit_code_and_last_words(
    odd: Odd,
) -> None:
    with pytest.raises(
        ServerUnavailable, match="exit code 3; it wrote last: no configuration"
    ) as raised:
        async with odd.server("dies-at-start"):
            pass
    assert raised.value.last_words == "no configuration"


async def test_a_server_that_hangs_at_start_is_ended_in_time(odd: Odd) -> None:
    started = time.monotonic()
    with pytest.raises(ServerTimeout, match=r"did not start within 2 s.*one moment"):
        async with odd.server("hangs-at-start", start_timeout=2, close_timeout=0.2):
            pass
    assert time.monotonic() - started < SECONDS


async def test_a_cancelled_start_leaves_nothing(odd: Odd) -> None:
    async def start() -> None:
        async with odd.server("hangs-at-start", close_timeout=0.2):
            pytest.fail("it does not start")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(start)
        await odd.started()
        tasks.cancel_scope.cancel()
    assert left_of(odd.pid) == []


async def test_a_server_that_never_lists_its_tools_is_told_in_time(odd: Odd) -> None:
    async with odd.server("never-lists", start_timeout=2) as server:
        with pytest.raises(ServerTimeout, match="list its tools within 2 s"):
            await server.tools()


async def test_a_list_without_an_end_is_refused(odd: Odd) -> None:
    async with odd.server("lists-for-ever") as server:
        with pytest.raises(ServerError, match="more than 100 pages"):
            await server.tools()


async def test_a_call_under_which_the_server_dies_is_lost_and_later_ones_fail(odd: Odd) -> None:
    async with odd.server() as server:
        tools = await server.tools()
        with anyio.fail_after(SECONDS):
            died, beside = await results(tools, ("die", {}), ("hang", {}))
        assert (died.status, beside.status) == (Status.LOST, Status.LOST)
        assert isinstance(died.error, ServerLost)
        assert died.error.last_words == "the last words"
        assert died.content == (
            "the server 'odd' ended with exit code 7 under the call. It had started, so its "
            "effects may or may not have happened."
        )
        later = await result(tools, "echo", text="?")
        assert later.status is Status.FAILED and "exit code 7 before this call" in str(
            later.content
        )
        with pytest.raises(ServerUnavailable, match="exit code 7"):
            await server.tools()


async def test_a_server_that_closes_its_output_and_stays_is_lost(odd: Odd) -> None:
    async with odd.server(close_timeout=0.2) as server:
        tools = await server.tools()
        lost = await result(tools, "close")
    assert lost.status is Status.LOST and "closed its output" in str(lost.content)


async def test_a_server_that_takes_a_moment_to_end_is_told_with_its_exit_code(odd: Odd) -> None:
    async with odd.server() as server:
        lost = await result(await server.tools(), "fade", seconds=0.3)
    assert lost.status is Status.LOST and "ended with exit code 7" in str(lost.content)


async def test_a_cancelled_call_is_told_to_the_server_and_ends_without_its_answer(odd: Odd) -> None:
    async with odd.server() as server, Kernel(grace=PATIENT) as kernel:
        tools = await server.tools()
        with anyio.fail_after(SECONDS):
            async with kernel.turn(tools) as turn:
                turn.submit(ToolCall("c1", "hang"))
                (asked,) = await odd.wait_for("tools/call")
                turn.cancel("enough")
        assert turn.results[0].status is Status.CANCELLED
        (told,) = await odd.wait_for("notifications/cancelled")
        assert told["params"]["requestId"] == asked["id"]
        assert (await result(tools, "echo", text="still there")).content == "still there"


async def test_a_timeout_is_told_to_the_server_as_well(odd: Odd) -> None:
    async with odd.server(timeout=0.2) as server:
        late = await result(await server.tools(), "hang")
        assert late.status is Status.TIMED_OUT
        await odd.wait_for("notifications/cancelled")


async def test_calls_of_a_server_that_reads_no_more_end_within_grace(odd: Odd) -> None:
    begun: list[str] = []

    class Watch:
        def observe(self, event: object) -> None:
            if isinstance(event, CallStarted):
                begun.append(event.call.id)

    async with (
        odd.server(close_timeout=0.2) as server,
        Kernel(grace=PATIENT, observers=[Watch()]) as kernel,
    ):
        tools = await server.tools()
        with anyio.fail_after(SECONDS), anyio.CancelScope() as scope:
            async with kernel.turn(tools) as turn:
                turn.submit(ToolCall("c0", "deaf"))
                await odd.wait_for("tools/call")
                # More than a pipe holds.
                for index in range(20):
                    turn.submit(ToolCall(f"c{index + 1}", "echo", {"text": "x" * 20_000}))
                await eventually(lambda: len(begun) == 21)
                scope.cancel()
                await anyio.sleep_forever()
        assert [each.status for each in turn.results] == [Status.CANCELLED] * 21


async def test_what_a_server_prints_between_its_answers_is_passed_over(
    odd: Odd, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "turnscope")
    async with odd.server("talks-at-start") as server:
        tools = await server.tools()
        assert (await result(tools, "garbage")).content == "after all"
    assert "not json" not in caplog.text


async def test_an_answer_that_is_none_fails_its_call_at_once(odd: Odd) -> None:
    async with odd.server() as server:
        tools = await server.tools()
        strange, bytes_ = await results(tools, ("no_answer", {}), ("bad_base64", {}))
        assert (strange.status, bytes_.status) == (Status.FAILED, Status.FAILED)
        assert "what is no answer" in str(strange.content)
        assert "not valid base64" in str(bytes_.content)
        assert (await result(tools, "echo", text="on")).content == "on"


async def test_a_message_without_an_end_closes_the_connection(odd: Odd) -> None:
    async with odd.server(longest_message=1_000_000) as server:
        lost = await result(await server.tools(), "huge")
    assert lost.status is Status.LOST and "more than 1,000,000 bytes" in str(lost.content)


async def test_a_large_answer_comes_whole(odd: Odd) -> None:
    async with odd.server() as server:
        whole = await result(await server.tools(), "huge")
    assert whole.ok and len(whole.value) == 3_000_000


@pytest.mark.parametrize("how", ["leaves", "raises", "cancelled"])
async def test_a_server_that_will_not_go_is_killed_however_its_block_is_left(
    odd: Odd, how: str
) -> None:
    started = time.monotonic()
    with anyio.CancelScope() as scope:
        try:
            async with odd.server("stubborn", close_timeout=0.2):
                if how == "raises":
                    raise LookupError("bare")
                if how == "cancelled":
                    scope.cancel()
                    await anyio.sleep_forever()
        except LookupError as exc:
            assert str(exc) == "bare"
    assert left_of(odd.pid) == []
    assert time.monotonic() - started < SECONDS
    assert scope.cancelled_caught is (how == "cancelled")


def test_no_number_of_native_cancels_keeps_a_server_alive(odd: Odd) -> None:
    async def use() -> None:
        async with odd.server("stubborn", close_timeout=0.2):
            await asyncio.sleep(SECONDS)

    async def main() -> None:
        task = asyncio.create_task(use())
        while not odd.log.exists() or not odd.received("notifications/initialized"):
            await asyncio.sleep(0.01)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0.05)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert left_of(odd.pid) == []

    asyncio.run(asyncio.wait_for(main(), SECONDS))


async def test_what_a_server_started_ends_with_it_though_it_went_by_itself(odd: Odd) -> None:
    async with odd.server() as server:
        child = int((await result(await server.tools(), "child")).value)
        assert child in group(odd.pid)
    assert left_of(odd.pid) == []


async def test_a_server_that_dies_takes_its_children_along_at_the_end_of_the_block(
    odd: Odd,
) -> None:
    async with odd.server() as server:
        tools = await server.tools()
        await result(tools, "child")
        # Its child holds the other end of its output: nobody can see that it is dead.
        async with Kernel() as kernel, kernel.turn(tools, timeout=0.5) as turn:
            turn.submit(ToolCall("c", "die"))
        assert turn.results[0].status is Status.TIMED_OUT
    assert left_of(odd.pid) == []


async def test_a_call_that_is_under_way_when_the_block_ends_is_lost(odd: Odd) -> None:
    async with Kernel() as kernel:
        async with odd.server() as server:
            tools = await server.tools()
            block = kernel.turn(tools, timeout=SECONDS)
            turn = await block.__aenter__()
            turn.submit(ToolCall("c", "hang"))
            await odd.wait_for("tools/call")
        turn.submit(ToolCall("d", "echo", {"text": "?"}))
        await block.__aexit__(None, None, None)
    under, after = turn.results
    assert under.status is Status.LOST
    assert after.status is Status.FAILED and "is closed" in str(after.content)


async def test_a_block_may_be_entered_again_and_old_tools_work_there(odd: Odd) -> None:
    server = odd.server()
    async with server:
        tools = await server.tools()
        with pytest.raises(RuntimeError, match="open already"):
            async with server:
                pass
    with pytest.raises(ServerUnavailable, match="is closed"):
        await server.tools()
    async with server:
        assert (await result(tools, "echo", text="again")).content == "again"


async def test_a_tool_called_as_a_function_asks_the_server(odd: Odd) -> None:
    async with odd.server() as server:
        echo, *_ = await server.tools()
        assert await echo(text="hi") == "hi"
        fail = next(each for each in await server.tools() if each.name == "fail")
        with pytest.raises(ToolError, match="no such file"):
            await fail()


async def test_what_a_server_writes_to_standard_error_goes_where_it_is_told(
    odd: Odd, tmp_path
) -> None:
    with open(tmp_path / "errors", "wb") as file:
        with pytest.raises(ServerUnavailable, match=r"ended with exit code 3$"):
            async with odd.server("dies-at-start", stderr=file):
                pass
    assert (tmp_path / "errors").read_text() == "no configuration\n"


def test_without_the_package_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)
    for make in (lambda: MCPServer.stdio(["x"]), lambda: MCPServer.http("http://127.0.0.1/")):
        with pytest.raises(ImportError, match=r"pip install 'turnscope\[mcp\]'"):
            make()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: MCPServer.stdio("npx server"), "shlex"),
        (lambda: MCPServer.stdio([]), "has none"),
        (lambda: MCPServer.stdio(["x"], start_timeout=0), "start_timeout"),
        (lambda: MCPServer.stdio(["x"], close_timeout=-1), "close_timeout"),
        (lambda: MCPServer.stdio(["x"], longest_message=0), "longest_message"),
        (lambda: MCPServer.http("ftp://x/"), "HTTP|http"),
        (lambda: MCPServer.http("http://a:secret@x/"), "password"),
    ],
)
def test_what_cannot_be_meant_is_refused_where_it_is_written(make, says: str) -> None:
    with pytest.raises((TypeError, ValueError), match=says) as raised:
        make()
    assert "secret" not in str(raised.value)
