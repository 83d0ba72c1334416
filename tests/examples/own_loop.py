"""Your own agent loop, any SDK: ``asyncio.gather`` over the tool calls becomes three lines.

Before::

    messages += await asyncio.gather(*[execute_tool(call) for call in reply.tool_calls])

After, the calls have timeouts, limits and places of their own, a failure is an answer to the model,
a cancelled request leaves nothing behind, and each call has its answer, in call order.
"""

from __future__ import annotations

from typing import Any

from turnscope import Kernel, ToolCall, tool


@tool(read_only=True, timeout=5)
async def weather(city: str) -> str:
    """Tell today's weather.

    Args:
        city: name of the city, in English
    """
    return f"sunny in {city}"


@tool
def population(city: str) -> int:
    """Look up how many people live in a city."""
    return {"Beijing": 21_893_095, "Shanghai": 24_870_895}[city]


TOOLS = [weather, population]


async def answer(kernel: Kernel, reply: Any) -> list[dict[str, Any]]:
    """The messages that answer *reply*, a ``ChatCompletionMessage`` of the OpenAI client."""
    async with kernel.turn(TOOLS, timeout=60) as turn:
        for call in reply.tool_calls:
            turn.submit(ToolCall(call.id, call.function.name, call.function.arguments))
    return [
        {"role": "tool", "tool_call_id": result.call.id, "content": result.content}
        for result in turn.results
    ]


def offered() -> list[dict[str, Any]]:
    """The tools as the request's ``tools`` parameter wants them."""
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": dict(tool.schema),
            },
        }
        for tool in TOOLS
    ]
