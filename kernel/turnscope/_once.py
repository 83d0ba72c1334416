"""The door for one run: a kernel of its own, for as long as it lasts. Above: the user."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ._agent import Agent, Output
from ._budget import Budget
from ._calls import Content
from ._context import Deps
from ._history import History
from ._kernel import Kernel
from ._run import RunResult
from .abc import Model


async def run(
    agent: Agent[Deps, Output],
    prompt: str | Sequence[Content] | None,
    *,
    deps: Deps | None = None,
    history: History | None = None,
    model: Model | str | None = None,
    settings: Mapping[str, Any] | None = None,
    timeout: float | None = None,
    deadline: float = math.inf,
    budget: Budget | None = None,
) -> RunResult[Output]:
    """Run *agent* on *prompt* until it answers, in a kernel of its own with the default limits.

    The synchronous door is ``anyio.run(turnscope.run, agent, "...")``. A program that runs more
    than one agent opens a `Kernel` once instead, which keeps connections and worker processes.
    The arguments are those of `Kernel.start`; raises what it and `Run.wait` raise.
    """
    async with Kernel() as kernel:
        return await kernel.run(
            agent,
            prompt,
            deps=deps,
            history=history,
            model=model,
            settings=settings,
            timeout=timeout,
            deadline=deadline,
            budget=budget,
        )
