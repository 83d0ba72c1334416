"""A tool with ``deps``: what the service owns reaches its tools, and no model sees it."""

from __future__ import annotations

import anyio
import attrs

from turnscope import CallContext, Kernel, Limits, ToolCall, ToolResult, tool


@attrs.define
class Inventory:
    """What the service owns: a database, in earnest."""

    stock: dict[str, int]


@tool(limit="db", timeout=5)
async def reserve(article: str, amount: int, context: CallContext[Inventory]) -> str:
    """Reserve an amount of an article.

    Args:
        article: its name
        amount: how many
    """
    left = context.deps.stock.get(article, 0) - amount
    if left < 0:
        raise ValueError(f"only {left + amount} of {article} are left")
    context.deps.stock[article] = left
    return f"reserved {amount}, {left} left"


async def main(inventory: Inventory) -> tuple[ToolResult, ...]:
    async with (
        Kernel(limits=Limits(groups={"db": 1})) as kernel,
        kernel.turn([reserve], deps=inventory) as turn,
    ):
        turn.submit(ToolCall("c1", "reserve", '{"article": "lamp", "amount": 2}'))
        turn.submit(ToolCall("c2", "reserve", '{"article": "lamp", "amount": 2}'))
    return turn.results


if __name__ == "__main__":
    for result in anyio.run(main, Inventory({"lamp": 3})):
        print(result.call.id, result.status, result.content)
