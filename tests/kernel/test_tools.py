"""Tools: what functions become, how they stay callable, and which are refused."""

from __future__ import annotations

import functools
import math
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import attrs
import pytest

from tests.kernel.bodies import (
    UNIT,
    a_kernel,
    call,
    move_on_after,
    statuses,
    submit,
)
from tests.kernel.bodies import anyio_backend as anyio_backend
from turnscope import (
    CallContext,
    Content,
    Tool,
    ToolCall,
    ToolResult,
    check_cancelled,
    current_call,
    heartbeat,
    progress,
    tool,
)
from turnscope.events import CallProgress, RunEvent

in_a_loop = pytest.mark.anyio


async def answer(function: Any, *, deps: Any = None, **arguments: Any) -> ToolResult:
    """The result of one call of *function*."""
    async with a_kernel() as kernel:
        async with kernel.turn([function], deps=deps) as turn:
            turn.submit(call(getattr(function, "name", None) or function.__name__, **arguments))
        return turn.results[0]


# What can be a tool


@in_a_loop
async def test_a_plain_async_function_runs_in_the_event_loop() -> None:
    async def echo(text: str) -> str:
        return text

    result = await answer(echo, text="hello")
    assert (result.value, result.backend) == ("hello", "inline")


@in_a_loop
async def test_a_plain_function_runs_in_a_thread() -> None:
    def echo(text: str) -> str:
        return text

    result = await answer(echo, text="hello")
    assert (result.value, result.backend) == ("hello", "thread")


@in_a_loop
async def test_a_function_that_may_not_block_can_be_put_into_the_event_loop() -> None:
    result = await answer(tool(backend="inline")(lambda_like))
    assert (result.value, result.backend) == ("no wait", "inline")


def lambda_like() -> str:
    """Return at once."""
    return "no wait"


class Shop:
    """A class whose methods are tools."""

    def __init__(self, stock: int) -> None:
        self.stock = stock

    @tool
    async def sell(self, count: int) -> int:
        """Sell some.

        Args:
            count: how many
        """
        self.stock -= count
        return self.stock

    @tool(name="audit", timeout=5)
    def check(self) -> int:
        """Count the stock, in a thread."""
        return self.stock

    @staticmethod
    @tool
    async def greet(name: str) -> str:
        """Say hello."""
        return f"hello {name}"

    async def close(self, hour: int) -> str:
        """A method that is no tool yet."""
        return f"closed at {hour}"

    async def __call__(self, what: str) -> str:
        """Order something."""
        return f"ordered {what} of {self.stock}"


@in_a_loop
async def test_a_method_is_a_tool_of_its_instance() -> None:
    one, two = Shop(10), Shop(20)
    assert (await answer(one.sell, count=3)).value == 7
    assert (await answer(two.sell, count=3)).value == 17
    assert (one.stock, two.stock) == (7, 17)


def test_a_methods_schema_does_not_show_self() -> None:
    assert set(Shop(1).sell.schema["properties"]) == {"count"}
    assert Shop(1).sell.description == "Sell some."


@in_a_loop
async def test_a_method_keeps_its_options_when_it_is_bound() -> None:
    bound = Shop(4).check
    assert (bound.name, bound.timeout, bound.backend) == ("audit", 5, "thread")
    assert (await answer(bound)).value == 4


@in_a_loop
async def test_a_staticmethod_is_a_tool_through_class_and_instance() -> None:
    assert (await answer(Shop.greet, name="a")).value == "hello a"
    assert (await answer(Shop(1).greet, name="b")).value == "hello b"


@in_a_loop
async def test_a_bound_method_that_is_no_tool_becomes_one() -> None:
    assert (await answer(Shop(1).close, hour=7)).value == "closed at 7"


@in_a_loop
async def test_a_callable_object_is_a_tool() -> None:
    order = Tool(Shop(3), name="order")
    assert order.description == "Order something."
    result = await answer(order, what="tea")
    assert (result.value, result.backend) == ("ordered tea of 3", "inline")


@in_a_loop
async def test_a_partial_is_a_tool_of_what_it_leaves_open() -> None:
    async def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    plus = Tool(functools.partial(add, b=2), name="plus")
    assert "a" in plus.schema["properties"]
    assert (await answer(plus, a=1)).value == 3


@in_a_loop
async def test_each_value_of_an_async_generator_is_progress_and_the_last_is_the_result() -> None:
    seen: list[object] = []

    class Watcher:
        def observe(self, event: RunEvent) -> None:
            if isinstance(event, CallProgress):
                seen.append(event.value)

    @tool
    async def counts(to: int) -> AsyncGenerator[int, None]:
        for n in range(to):
            await anyio.sleep(0)
            yield n

    async with a_kernel(observers=[Watcher()]) as kernel:
        async with kernel.turn([counts]) as turn:
            turn.submit(call("counts", to=3))
    assert seen == [0, 1, 2]
    assert turn.results[0].value == 2


@in_a_loop
async def test_an_async_generator_that_yields_nothing_returns_none() -> None:
    async def nothing() -> AsyncGenerator[int, None]:
        if current_call().deps:
            yield 1

    assert (await answer(nothing)).value is None


@in_a_loop
async def test_an_interrupted_async_generator_runs_its_cleanup() -> None:
    notes: list[str] = []

    async def counts() -> AsyncGenerator[int, None]:
        try:
            yield 1
            await anyio.sleep_forever()
        finally:
            await anyio.sleep(UNIT / 5)
            notes.append("cleaned")

    async with a_kernel() as kernel:
        with move_on_after(UNIT):
            async with kernel.turn([counts]) as turn:
                submit(turn, counts)
    assert statuses(turn) == ["cancelled"]
    assert notes == ["cleaned"]


# A Tool is its function


@in_a_loop
async def test_a_tool_is_callable_as_its_function() -> None:
    @tool(timeout=1)
    async def add(a: int, b: int = 1) -> int:
        return a + b

    @tool
    def double(n: int) -> int:
        return 2 * n

    assert await add(1) == 2
    assert await add(1, b=4) == 5
    assert double(4) == 8
    assert await Shop(9).sell(2) == 7


def test_a_tool_shows_its_name_description_and_schema() -> None:
    @tool
    async def weather(city: str) -> str:
        """Tell today's weather."""
        return city

    assert weather.name == "weather"
    assert weather.description == "Tell today's weather."
    assert weather.schema["required"] == ["city"]
    assert "weather" in repr(weather)


def test_name_and_description_can_be_given() -> None:
    named = tool(name="other", description="Other words.")(lambda_like)
    assert (named.name, named.description) == ("other", "Other words.")


@in_a_loop
async def test_the_same_function_may_be_given_to_many_turns() -> None:
    async def echo(text: str) -> str:
        return text

    async with a_kernel() as kernel:
        for text in "abc":
            async with kernel.turn([echo]) as turn:
                turn.submit(call("echo", text=text))
            assert turn.results[0].value == text


# What is refused


@pytest.mark.parametrize("name", ["", "has space", "naïve", "a" * 129, "a/b", "new\nline"])
def test_names_that_no_provider_takes_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        tool(name=name)(lambda_like)


@pytest.mark.parametrize("name", ["a", "a" * 128, "get_weather", "server.tool", "a-b:c", "7"])
def test_names_that_providers_take_are_taken(name: str) -> None:
    assert tool(name=name)(lambda_like).name == name


def test_a_lambda_needs_a_name() -> None:
    with pytest.raises(ValueError, match="name="):
        Tool(lambda: 1)
    assert Tool(lambda: 1, name="one")() == 1


@pytest.mark.parametrize("option", ["timeout", "idle_timeout"])
@pytest.mark.parametrize("value", [0, -1, math.nan])
def test_spans_that_mean_nothing_are_refused(option: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"'lambda_like'.*{option}"):
        Tool(lambda_like, **{option: value})


def test_an_unknown_way_to_take_errors_is_refused() -> None:
    with pytest.raises(ValueError, match="on_error"):
        tool(on_error="ignore")(lambda_like)  # type: ignore[call-overload]  # because that is tested


def test_what_is_no_function_is_refused() -> None:
    with pytest.raises(TypeError, match="callable"):
        Tool("weather")  # type: ignore[arg-type]  # because that is tested


def test_a_tool_of_a_tool_is_refused() -> None:
    with pytest.raises(TypeError, match="already"):
        tool(tool(lambda_like))


def test_a_generator_is_refused() -> None:
    def counts() -> Any:
        yield 1

    with pytest.raises(TypeError, match="async def"):
        tool(counts)


@in_a_loop
async def test_two_tools_of_one_name_are_refused_before_any_work() -> None:
    other = tool(name="lambda_like")(Shop(1).close)
    async with a_kernel() as kernel:
        with pytest.raises(ValueError, match="two tools are named 'lambda_like'"):
            kernel.turn([lambda_like, other])
        kernel.turn([lambda_like, lambda_like])  # one and the same may come twice


@in_a_loop
async def test_an_unknown_backend_is_refused_before_any_work() -> None:
    async with a_kernel() as kernel:
        with pytest.raises(ValueError, match=r"'cluster'.*inline.*thread"):
            kernel.turn([tool(backend="cluster")(lambda_like)])


@in_a_loop
async def test_an_async_tool_cannot_be_put_into_a_thread() -> None:
    async def echo() -> None: ...

    async with a_kernel() as kernel:
        with pytest.raises(TypeError, match="inline") as raised:
            kernel.turn([tool(backend="thread")(echo)])
    assert "echo" in "".join(raised.value.__notes__)


# Errors


@in_a_loop
async def test_a_tools_exception_is_told_to_the_model_by_default() -> None:
    async def breaks() -> None:
        raise LookupError("no such city")

    result = await answer(breaks)
    assert result.status == "failed"
    assert result.content == "LookupError: no such city"
    assert isinstance(result.error, LookupError)


@in_a_loop
async def test_a_function_of_the_exception_gives_the_text_for_the_model() -> None:
    async def breaks() -> None:
        raise LookupError("no such city")

    result = await answer(tool(on_error=lambda exc: f"sorry: {exc}")(breaks))
    assert (result.status, result.content) == ("failed", "sorry: no such city")
    assert isinstance(result.error, LookupError)


@in_a_loop
async def test_a_failing_function_of_the_exception_hides_neither_failure() -> None:
    async def breaks() -> None:
        raise LookupError("no such city")

    def words(exc: Exception) -> str:
        raise KeyError("words")

    result = await answer(tool(on_error=words)(breaks))
    assert result.status == "failed"
    assert isinstance(result.error, KeyError)
    assert isinstance(result.error.__cause__, LookupError)


@in_a_loop
@pytest.mark.parametrize("backend", ["inline", "thread"])
async def test_a_fatal_tool_is_raised_bare_from_every_place(backend: str) -> None:
    def breaks() -> None:
        raise LookupError("fatal")

    async with a_kernel() as kernel:
        with pytest.raises(LookupError, match="fatal"):
            async with kernel.turn([tool(on_error="raise", backend=backend)(breaks)]) as turn:
                turn.submit(call("breaks"))
    assert statuses(turn) == ["failed"]


@in_a_loop
async def test_a_group_of_one_is_unwrapped_and_a_group_of_two_is_kept() -> None:
    async def breaks(count: int) -> None:
        raise ExceptionGroup("group", [ValueError(str(n)) for n in range(count)])

    one = await answer(breaks, count=1)
    assert isinstance(one.error, ValueError)
    assert one.content == "ValueError: 0"
    two = await answer(breaks, count=2)
    assert isinstance(two.error, ExceptionGroup)
    assert two.content == "2 errors: ValueError: 0; ValueError: 1"


# The context


@attrs.frozen
class Database:
    """Something that tools depend on."""

    name: str


@in_a_loop
async def test_a_context_parameter_is_filled_in_and_not_shown() -> None:
    @tool
    async def look_up(key: str, context: CallContext[Database]) -> str:
        return f"{context.deps.name}/{key}"

    assert set(look_up.schema["properties"]) == {"key"}
    result = await answer(look_up, deps=Database("main"), key="k")
    assert result.value == "main/k"


@in_a_loop
async def test_a_bare_context_is_filled_in_too_also_in_threads_and_methods() -> None:
    class Service:
        @tool
        def who(self, context: CallContext, n: int = 0) -> str:  # type: ignore[type-arg]  # because a bare one is tested
            return f"{context.call.id} {context.deps} {n}"

    assert (await answer(Service().who, deps="d", n=3)).value == "c-who d 3"


@in_a_loop
async def test_a_model_cannot_fill_in_the_context() -> None:
    async def look_up(context: CallContext[Any]) -> str:
        return "never"

    assert (await answer(look_up, context={"deps": "mine"})).status == "invalid"


@in_a_loop
async def test_current_call_is_the_context_that_is_injected() -> None:
    async def same(context: CallContext[Any]) -> bool:
        assert current_call().call is context.call
        assert current_call().run_id == context.run_id
        return current_call() is context

    assert (await answer(same)).value is True


@pytest.mark.parametrize(
    "function",
    [current_call, check_cancelled, heartbeat, lambda: progress(1)],
    ids=["current_call", "check_cancelled", "heartbeat", "progress"],
)
def test_outside_of_a_tool_there_is_no_call(function: Any) -> None:
    with pytest.raises(RuntimeError, match="no tool call is under way"):
        function()


@in_a_loop
async def test_in_the_block_of_a_turn_there_is_no_call_either() -> None:
    async with a_kernel() as kernel, kernel.turn([]):
        with pytest.raises(RuntimeError, match="no tool call is under way"):
            current_call()


# Calls that never reach a body


@in_a_loop
async def test_an_unknown_tool_is_told_the_nearest_name() -> None:
    async def weather() -> None: ...

    async with a_kernel() as kernel:
        async with kernel.turn([weather]) as turn:
            turn.submit(call("wether"))
            turn.submit(call("xyzzy"))
    assert statuses(turn) == ["invalid", "invalid"]
    assert "did you mean 'weather'?" in str(turn.results[0].content)
    assert "the tools are: weather" in str(turn.results[1].content)


@in_a_loop
@pytest.mark.parametrize(
    "arguments", ["", "{", "[1]", "null", '{"n": "x"}', "{}", b"\xff", {"n": []}], ids=repr
)
async def test_arguments_that_do_not_fit_are_a_result_and_nothing_runs(arguments: Any) -> None:
    ran: list[int] = []

    async def takes(n: int) -> None:
        ran.append(n)

    async with a_kernel() as kernel:
        async with kernel.turn([takes]) as turn:
            turn.submit(ToolCall("c1", "takes", arguments))
    assert statuses(turn) == ["invalid"]
    assert ran == []
    assert turn.results[0].started_at is None


@in_a_loop
async def test_arguments_may_be_text_bytes_or_a_mapping() -> None:
    async def takes(n: int) -> int:
        return n

    async with a_kernel() as kernel:
        async with kernel.turn([takes]) as turn:
            for arguments in ('{"n": 1}', b'{"n": 1}', {"n": 1}):
                turn.submit(ToolCall("c1", "takes", arguments))
    assert [result.value for result in turn.results] == [1, 1, 1]


def test_arguments_of_another_type_are_refused_at_once() -> None:
    with pytest.raises(TypeError, match=r"'\{\}'"):
        ToolCall("c1", "takes", None)  # type: ignore[arg-type]  # because that is tested


@in_a_loop
async def test_repeated_and_empty_ids_run_like_any_other() -> None:
    async def takes(n: int) -> int:
        return n

    calls = [ToolCall(id, "takes", {"n": n}) for n, id in enumerate(["", "", "x", "x"])]
    async with a_kernel() as kernel:
        async with kernel.turn([takes]) as turn:
            for each in calls:
                turn.submit(each)
    assert [result.value for result in turn.results] == [0, 1, 2, 3]
    assert [result.call for result in turn.results] == calls


def test_content_has_exactly_one_of_its_forms() -> None:
    for wrong in ({}, {"text": "a", "url": "b"}, {"text": "a", "data": b"b", "url": "c"}):
        with pytest.raises(ValueError, match="exactly one"):
            Content(**wrong)
    assert "<3 bytes>" in repr(Content(data=b"abc"))
