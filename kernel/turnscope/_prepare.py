"""A run before it begins: what was asked is checked here, before any work and any request.

Above: the kernel. Below: the run, and the conductor, which is made when the run's block is entered.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypedDict

import attrs

from . import _turn_events
from ._agent import Agent
from ._answering import Answering
from ._block import facts_here, parent_here, seconds_of
from ._budget import Budget, Ledger
from ._calls import Content
from ._conductor import Conductor
from ._context import Deps
from ._feed import Feed
from ._history import History
from ._limits import Limiter
from ._messages import AssistantMessage, UserMessage, user_message
from ._models import takes_output
from ._run import Run
from ._stored import storable
from .events import RunEvent

if TYPE_CHECKING:
    from ._kernel import Kernel
    from .abc import Model


class RunOptions(TypedDict, Generic[Deps], total=False):
    """The keyword arguments of a run, which `Kernel.start` explains."""

    deps: Deps | None
    history: History | None
    model: Model | str | None
    settings: Mapping[str, Any] | None
    timeout: float | None
    deadline: float
    budget: Budget | None


class Cap(Limiter):
    """The limiter of one run, ``Agent(max_parallel_calls=...)``: not even its first wait hangs."""

    __slots__ = ()
    own = True


def first_history(prompt: str | Sequence[Content] | None, history: History | None) -> History:
    """What the first request sends; raises TypeError or ValueError for what no model takes."""
    if history is None:
        history = History()
    elif not isinstance(history, History):
        raise TypeError(
            f"history= is a History, not {type(history).__name__}: History(messages) makes one"
        )
    if prompt is not None:
        asked = user_message(prompt)
        content = storable(asked.content)
        return history.grown([asked if content is asked.content else UserMessage(content)])
    if not history:
        raise ValueError("there is nothing to answer: give a prompt, or a history to go on from")
    if isinstance(history[-1], AssistantMessage):
        raise ValueError(
            "this history ends with the model's answer: give a prompt; None is for one that ends "
            "with a prompt or with results"
        )
    return history


def prepare(
    kernel: Kernel,
    agent: Agent[Any, Any],
    prompt: str | Sequence[Content] | None,
    *,
    deps: Any = None,
    history: History | None = None,
    model: Model | str | None = None,
    settings: Mapping[str, Any] | None = None,
    timeout: float | None = None,
    deadline: float = math.inf,
    budget: Budget | None = None,
    listen: bool,
) -> Run[Any]:
    """Check a run, and make it: it begins when its block is entered, in the task that enters it.

    listen: whether its events are kept for a reader.
    """
    if not isinstance(agent, Agent):
        raise TypeError(f"a run is of an Agent, not of {type(agent).__name__}")
    if budget is not None and not isinstance(budget, Budget):
        raise TypeError(f"budget={budget!r}: a Budget, as Budget(turns=10)")
    seconds_of("kernel.run", timeout, deadline)
    kernel._check_open("kernel.run()")
    first = first_history(prompt, history)
    found = kernel._models.find(model, agent.model)
    cap = agent.max_parallel_calls if agent.parallel_tool_calls else 1
    limiter = None if cap == math.inf else Cap("max_parallel_calls", cap)
    offer = kernel._offer(agent.tools, limiter, not agent.parallel_tool_calls)
    way = kernel._way_to(found)
    make: Callable[..., Conductor] = Conductor
    if agent._answer is not None:
        make = partial(Answering, agent._answer, not takes_output(found, agent._answer.schema))
    given = agent.budget if budget is None else budget
    merged = {**agent.settings, **(settings or {})}

    def begin(feed: Feed | None) -> Conductor:
        kernel._check_open("kernel.run()")
        parent = parent_here(kernel)
        now = kernel._loop.now()
        own = deadline if timeout is None else min(deadline, now + timeout)
        end = min(own, now + given.seconds)
        ledger = Ledger(given, None if parent is None else parent.facts.ledger)
        facts = facts_here(kernel, parent, deps, end, ledger)
        if feed is not None:
            tell = _both(feed, facts.observed, facts.tell)
            facts = attrs.evolve(facts, observed=True, kinds=_turn_events, tell=tell)
        inside = make(
            kernel,
            agent,
            found,
            way,
            offer,
            facts=facts,
            history=first,
            settings=merged,
            deadline=end,
            ledger=ledger,
            seconds=given.seconds if end < own else math.inf,
            parent=parent,
            feed=feed,
        )
        kernel._conduct(inside)
        if parent is not None:
            parent.host(inside)
        return inside

    return Run(begin, listen=listen)


def _both(
    feed: Feed, observed: bool, above: Callable[[RunEvent], None]
) -> Callable[[RunEvent], None]:
    """Tell the reader of a run, and those who are told anyway."""
    if not observed:
        return feed.put

    def tell(event: RunEvent) -> None:
        feed.put(event)
        above(event)

    return tell
