"""The door for one run: a kernel of its own, for as long as it lasts. Above: the user."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import Unpack  # of a generic TypedDict, as in `_kernel`

from ._agent import Agent, Output
from ._calls import Content
from ._context import Deps
from ._kernel import Kernel
from ._prepare import RunOptions
from ._run import RunResult


async def run(
    agent: Agent[Deps, Output],
    prompt: str | Sequence[Content] | None,
    **options: Unpack[RunOptions[Deps]],
) -> RunResult[Output]:
    """Run *agent* on *prompt* until it answers, in a kernel of its own with the default limits.

    The synchronous door is ``anyio.run(turnscope.run, agent, "...")``. A program that runs more
    than one agent opens a `Kernel` once instead, which keeps connections and worker processes.
    The options are those of `Kernel.start`; raises what it and `Run.wait` raise.
    """
    async with Kernel() as kernel:
        return await kernel.run(agent, prompt, **options)
