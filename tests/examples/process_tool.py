"""CPU work in a process: it uses another core, and is killed when its time is over."""

from __future__ import annotations

import anyio

from turnscope import Kernel, Limits, ToolCall, ToolResult, tool


@tool(backend="process", timeout=30)
def factorise(n: int) -> list[int]:
    """Find the prime factors of a number, the small ones first."""
    factors = []
    divisor = 2
    while divisor * divisor <= n:
        while n % divisor == 0:
            factors.append(divisor)
            n //= divisor
        divisor += 1
    return [*factors, n] if n > 1 else factors


async def main(*numbers: int, timeout: float | None = None) -> tuple[ToolResult, ...]:
    async with (
        Kernel(limits=Limits(processes=2)) as kernel,
        kernel.turn([factorise], timeout=timeout) as turn,
    ):
        for number in numbers:
            turn.submit(ToolCall(f"of {number}", "factorise", {"n": number}))
    return turn.results


# The workers import this file to find `factorise`: without the guard they would run it.
if __name__ == "__main__":
    for result in anyio.run(main, 91, 97, 1_000_003 * 1_000_033):
        print(result.call.id, result.content)
