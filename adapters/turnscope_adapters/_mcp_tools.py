"""What a tool server lists, as Tools. Above: `mcp`. Below: `turnscope.Tool`."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

import attrs
import mcp_types as types

from turnscope import Tool

from ._mcp_errors import ServerError

_log: Final = logging.getLogger("turnscope")
_ODD: Final = re.compile(r"[^a-zA-Z0-9_.:-]")
_LONGEST_NAME: Final = 128


@attrs.frozen(kw_only=True)
class ToolOptions:
    """How the calls of all tools of a server are run."""

    prefix: str
    timeout: float | None
    idle_timeout: float | None
    limit: str | None
    trusted: bool


Call = Callable[[str, Mapping[str, Any]], Awaitable[Any]]


def tools_of(
    listed: Iterable[types.Tool], options: ToolOptions, server: str, call: Call
) -> list[Tool[..., Any]]:
    """A Tool for each that is *listed*, which asks by *call*.

    One whose schema cannot be used is left out, with a warning: the others are good.
    """
    made: dict[str, Tool[..., Any]] = {}
    for each in listed:
        name = _free(f"{options.prefix}{each.name}", made)
        try:
            made[name] = _tool(each, name, options, call)
        except (TypeError, ValueError) as exc:
            said = " ".join(str(exc).split())
            _log.warning("the tool %r of server %r is left out: %s", each.name, server, said)
    return list(made.values())


def _free(wanted: str, taken: Mapping[str, object]) -> str:
    """*wanted* in the characters that models take, and unlike those that are *taken*."""
    name = _ODD.sub("_", wanted)[:_LONGEST_NAME]
    number = 2
    while name in taken:
        end = f"_{number}"
        name = f"{_ODD.sub('_', wanted)[: _LONGEST_NAME - len(end)]}{end}"
        number += 1
    return name


def _tool(listed: types.Tool, name: str, options: ToolOptions, call: Call) -> Tool[..., Any]:
    async def ask(**arguments: Any) -> Any:
        return await call(listed.name, arguments)

    hints = (listed.annotations if options.trusted else None) or types.ToolAnnotations()
    read_only = hints.read_only_hint is True
    return Tool(
        ask,
        name=name,
        description=listed.description or listed.title or "",
        schema=listed.input_schema,
        timeout=options.timeout,
        idle_timeout=options.idle_timeout,
        limit=options.limit,
        read_only=read_only,
        idempotent=hints.idempotent_hint is True,
        # What says nothing may destroy something: so the protocol wants it read.
        destructive=not read_only and hints.destructive_hint is not False,
        on_error=_words,
    )


def _words(exc: Exception) -> str:
    """What the model reads of a failure: a server's own words as they are."""
    return str(exc) if isinstance(exc, ServerError) else f"{type(exc).__name__}: {exc}"
