"""``turnscope run PROMPT``: an agent of options, on a prompt, against a real model.

Above: `_commands`. Below: `_stage`, which runs and shows it, `_model_names`, `_targets`, `_servers`
and `_conversation`, which find what the options name.
"""

from __future__ import annotations

import os
import sys

import attrs

from turnscope import (
    Agent,
    Budget,
    BudgetExceeded,
    DeadlineExceeded,
    ModelError,
    TurnscopeError,
)

from ._conversation import Conversation
from ._errors import BadUsage, Broken
from ._interrupts import Interrupts
from ._model_names import model_of
from ._servers import server_of
from ._stage import PATIENCE, Loop, Stage, check_loop
from ._targets import find


@attrs.frozen(kw_only=True)
class Options:
    """What was typed."""

    model: str
    tools: tuple[str, ...] = ()
    mcp: tuple[str, ...] = ()
    instructions: str | None = None
    history: str | None = None
    timeout: float | None = None
    turns: float | None = None
    tokens: float | None = None
    loop: Loop = "asyncio"
    json: bool = False


def run(prompt: str | None, options: Options) -> int:
    """Run an agent on *prompt*; returns the exit code: 0, or 130 after Ctrl-C.

    Raises BadUsage for options that cannot work, before any request; Broken if the run fails, or
    the conversation cannot be stored.
    """
    check_loop(options.loop)
    conversation = None if options.history is None else Conversation(options.history)
    if prompt is None and (conversation is None or conversation.history is None):
        raise BadUsage("there is no prompt; only a conversation in --history goes on without one")
    agent, budget = _agent(options), _budget(options)
    servers = [server_of(text) for text in options.mcp]
    with Interrupts(PATIENCE) as interrupts:
        stage = Stage(
            agent=agent,
            prompt=prompt,
            loop=options.loop,
            folder=os.getcwd(),
            interrupts=interrupts,
            history=None if conversation is None else conversation.history,
            timeout=options.timeout,
            budget=budget,
            servers=servers,
        )
        try:
            stage.show(options.json, sys.stderr)
        finally:
            if conversation is not None and stage.history is not None:
                conversation.store(stage.history)
        if interrupts.asked:
            print("turnscope: interrupted", file=sys.stderr, flush=True)
            return 130
        if stage.error is not None:
            raise Broken(_told(stage.error, options)) from stage.error
        return 0


def _agent(options: Options) -> Agent[object, str]:
    tools = [tool for target in options.tools for tool in find(target)]
    try:
        return Agent(model=model_of(options.model), tools=tools, instructions=options.instructions)
    except ValueError as exc:
        raise BadUsage(f"--tools: {exc}") from exc


def _budget(options: Options) -> Budget | None:
    spans = {"turns": options.turns, "tokens": options.tokens}
    given = {name: value for name, value in spans.items() if value is not None}
    try:
        return Budget(**given) if given else None
    except ValueError as exc:
        raise BadUsage(str(exc)) from exc


def _told(error: TurnscopeError, options: Options) -> str:
    """What ended the run, in one line, and what can be typed for it."""
    text = " ".join(str(error).split())
    if isinstance(error, ModelError):
        known = error.status is None or str(error.status) in text
        again = "" if error.retry_after is None else f" (ask again in {error.retry_after:g} s)"
        return f"{text}{'' if known else f' (HTTP status {error.status})'}{again}"
    go_on = "" if options.history is None else ", or go on: the same without a prompt"
    if isinstance(error, BudgetExceeded) and error.what in ("turns", "tokens"):
        return f"the budget of {error.limit:g} {error.what} is spent; raise --{error.what}{go_on}"
    if isinstance(error, DeadlineExceeded) and options.timeout is not None:
        return f"the run took longer than its {options.timeout:g} s; raise --timeout{go_on}"
    return text
