"""``turnscope tools MODULE:NAME``: what a model is told of some tools, and how their calls run.

Prints the tools that `_targets` finds. Above: `_commands`. Below: `_targets`, and the public names
of `turnscope`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from rich.console import Console
from rich.json import JSON
from rich.text import Text

from turnscope import Tool

from ._targets import find

# The options that are shown when they say anything, in this order.
_SPANS: Final = ("timeout", "idle_timeout")
_FLAGS: Final = ("read_only", "idempotent", "destructive")


def tools(target: str, as_json: bool) -> int:
    """Print the tools that *target*, ``MODULE`` or ``MODULE:NAME``, leads to.

    Raises BadUsage if it leads to none; Broken if the module cannot be imported.
    """
    found = list(find(target))
    if as_json:
        functions = [
            {
                "type": "function",
                "function": {
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": tool.schema,
                },
            }
            for tool in found
        ]
        print(json.dumps(functions, indent=2))
        return 0
    console = Console()
    for number, tool in enumerate(found):
        if number:
            console.print()
        _show(console, tool)
    return 0


def _show(console: Console, tool: Tool[..., Any]) -> None:
    console.print(Text(tool.name, style="bold cyan"))
    if tool.description:
        console.print(Text(tool.description))
    console.print(Text(f"runs: {', '.join(_options(tool))}", style="green"))
    console.print(JSON.from_data(tool.schema, indent=2), soft_wrap=True)


def _options(tool: Tool[..., Any]) -> Iterable[str]:
    place = {"inline": "in the event loop (inline)"}
    yield place.get(tool.backend, f"in the backend {tool.backend!r}")
    for name in _SPANS:
        if (seconds := getattr(tool, name)) is not None:
            yield f"{name} {seconds:g} s"
    if tool.limit is not None:
        yield f"limit {tool.limit!r}"
    yield from (name for name in _FLAGS if getattr(tool, name))
    if tool.on_error != "result":
        yield f"on_error {tool.on_error if isinstance(tool.on_error, str) else 'a function'}"
