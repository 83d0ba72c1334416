"""A test of one's own agent: a scripted model, and a minute of waiting in no time.

The agent here is yours: a tool that asks a slow service, and policies that must hold when it does
not answer. The test stands in for the model, not for the tools.
"""

from __future__ import annotations

import anyio
import pytest

from turnscope import Agent, CallContext, DeadlineExceeded, Kernel, ToolCall, tool
from turnscope.events import ModelFinished, TextDelta
from turnscope.testing import ScriptedModel, Stream, nothing_left, virtual_time

# What is tested.


class Orders:
    """A service of the shop's; this one is as slow as told."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.cancelled: list[int] = []

    async def cancel(self, number: int) -> None:
        await anyio.sleep(self.seconds)
        self.cancelled.append(number)


@tool(timeout=10, destructive=True)
async def cancel_order(number: int, context: CallContext[Orders]) -> str:
    """Cancel an order.

    Args:
        number: of the order
    """
    await context.deps.cancel(number)
    return f"order {number} is cancelled"


agent: Agent[Orders, str] = Agent(
    model="openai:gpt-5", tools=[cancel_order], instructions="You work for a shop. Be brief."
)

# The test.


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[object, ...]:
    return tuple(virtual_time(request.param).values())


@pytest.mark.anyio
async def test_the_agent_cancels_the_order() -> None:
    orders = Orders(seconds=5)
    model = ScriptedModel([ToolCall("c1", "cancel_order", {"number": 7}), "Done."])
    async with nothing_left(), Kernel(model=model) as kernel:
        result = await kernel.run(agent, "Cancel my order 7.", deps=orders)
    assert result.output == "Done."
    assert orders.cancelled == [7]
    assert model.requests[0].instructions == "You work for a shop. Be brief."
    assert [message.content for message in result.history.results] == ["order 7 is cancelled"]


@pytest.mark.anyio
async def test_the_model_is_told_when_the_shop_does_not_answer() -> None:
    model = ScriptedModel(
        [
            ToolCall("c1", "cancel_order", {"number": 7}),
            lambda request: f"Sorry: {request.history.results[-1].status}",
        ]
    )
    async with nothing_left(), Kernel(model=model) as kernel:
        result = await kernel.run(agent, "Cancel my order 7.", deps=Orders(seconds=3600))
    assert result.output == "Sorry: timed_out"


@pytest.mark.anyio
async def test_a_customer_waits_half_a_minute_at_most() -> None:
    never = Stream([(1, TextDelta("Well, ")), (600, ModelFinished())])
    async with nothing_left(), Kernel(model=ScriptedModel([never])) as kernel:
        start = anyio.current_time()
        with pytest.raises(DeadlineExceeded):
            await kernel.run(agent, "Hello?", deps=Orders(0), timeout=30)
        assert anyio.current_time() - start == pytest.approx(30)
