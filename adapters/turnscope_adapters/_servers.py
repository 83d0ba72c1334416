"""``--mcp``: the tool servers of a run, started before it and ended after it.

Above: `_run_command` and `_stage`. Below: `mcp`, which needs an extra and is imported only for a
server; `_interrupts`.
"""

from __future__ import annotations

import logging
import re
import shlex
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final

import anyio

from turnscope import Agent, Tool

from ._errors import BadUsage
from ._interrupts import Interrupts

if TYPE_CHECKING:
    from .mcp import MCPServer

_PREFIXED: Final = re.compile(r"([a-z][a-z0-9_-]*)=(.+)", re.DOTALL)


def server_of(text: str) -> MCPServer:
    """The server at a URL, or that a command starts; before both may stand ``PREFIX=``.

    Raises BadUsage if *text* is neither, or what is needed for it is not installed.
    """
    from .mcp import MCPServer

    match = _PREFIXED.fullmatch(text)
    prefix, where = (f"{match[1]}_", match[2]) if match else ("", text)
    try:
        if where.startswith(("http://", "https://")):
            return MCPServer.http(where, prefix=prefix)
        return MCPServer.stdio(shlex.split(where), prefix=prefix)
    except ImportError as exc:
        raise BadUsage(str(exc)) from exc
    except (ValueError, RuntimeError) as exc:
        raise BadUsage(f"--mcp: {exc}; write a URL, or a command as for a shell") from exc


async def play_with(
    agent: Agent[Any, Any],
    servers: Sequence[MCPServer],
    interrupts: Interrupts,
    play: Callable[[Agent[Any, Any]], Awaitable[None]],
) -> None:
    """*play* the agent with the tools of *servers* beside its own; they end when it has.

    Not at all, if Ctrl-C comes before all have started. Raises ServerError if one does not start,
    BadUsage if two tools have one name, and what *play* raises.
    """
    if not servers:
        await play(agent)
        return
    logging.getLogger("mcp").setLevel(logging.CRITICAL)  # what it logs is told by the results
    failure: BaseException | None = None
    async with anyio.create_task_group() as group:
        try:
            async with AsyncExitStack() as stack:
                waiting, ended = anyio.CancelScope(), anyio.Event()

                async def wait_for_ctrl_c() -> None:
                    with waiting:
                        await interrupts.wait()
                        group.cancel_scope.cancel()
                    ended.set()

                group.start_soon(wait_for_ctrl_c)
                tools = list(agent.tools)
                for server in servers:
                    await stack.enter_async_context(server)
                    tools += await server.tools()
                waiting.cancel()  # one task may wait for it: from here on the run's own
                await ended.wait()
                await play(_with(agent, tools))
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as exc:  # to be raised bare, below
            failure = exc
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure


def _with(agent: Agent[Any, Any], tools: list[Tool[..., Any]]) -> Agent[Any, Any]:
    try:
        return agent.replace(tools=tools)
    except ValueError as exc:
        raise BadUsage(f"--mcp: {exc}, or write --mcp PREFIX=COMMAND") from exc
