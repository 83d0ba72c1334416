"""``turnscope tools MODULE:NAME``: what a model is told of some tools, and how their calls run.

Finds the tools in a module that it imports, and prints them. Above: `_commands`. Below: the public
names of `turnscope`.
"""

from __future__ import annotations

import difflib
import importlib
import json
import os
import pkgutil
import sys
import traceback
from collections.abc import Iterable, Mapping
from contextlib import redirect_stdout
from types import ModuleType
from typing import Any, Final, TypeGuard, cast

from rich.console import Console
from rich.json import JSON
from rich.text import Text

from turnscope import Tool

from ._errors import BadUsage, Broken

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


def find(target: str) -> Iterable[Tool[..., Any]]:
    """The tools that *target* leads to, at least one."""
    module_name, colon, name = target.partition(":")
    if not module_name or module_name.startswith(".") or (colon and not name):
        raise BadUsage(f"{target!r} names no tools: write MODULE or MODULE:NAME")
    module = _imported(module_name)
    if not name:
        named = _tools_among(vars(module).values())
        if not named:
            raise BadUsage(
                f"the module {module_name!r} has no Tool; name a function of it, as "
                f"{module_name}:NAME"
            )
        return named
    return [_tool(each, target) for each in _members(_value(module, name), target)]


def _imported(name: str) -> ModuleType:
    if name.endswith(".py") or "/" in name or os.sep in name:
        dotted = os.path.splitext(os.path.normpath(name))[0].replace(os.sep, ".")
        raise BadUsage(f"{name!r} is a file's name; name the module, as {dotted.strip('.')!r}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        with redirect_stdout(sys.stderr):  # what the module prints is no part of the schemas
            return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        # The module itself, or a package on the way to it; else one that it wants to import.
        if exc.name is not None and f"{name}.".startswith(f"{exc.name}."):
            hint = _near(exc.name.rpartition(".")[2], _modules_beside(exc.name))
            raise BadUsage(f"there is no module {exc.name!r}{hint}") from None
        raise Broken(_told(name, exc)) from exc
    except (Exception, SystemExit) as exc:
        raise Broken(_told(name, exc)) from exc


def _told(name: str, exc: BaseException) -> str:
    """What stopped the import of the module *name*, and where."""
    last = traceback.extract_tb(exc.__traceback__)[-1:]
    place = "".join(f" ({frame.filename}:{frame.lineno})" for frame in last)
    return f"importing {name!r} failed with {type(exc).__name__}: {exc}{place}"


def _modules_beside(name: str) -> list[str]:
    package, _, _ = name.rpartition(".")
    path = getattr(sys.modules.get(package), "__path__", None) if package else None
    return [module.name for module in pkgutil.iter_modules(path)]


def _value(module: ModuleType, path: str) -> object:
    value: object = module
    for name in path.split("."):
        try:
            value = getattr(value, name)
        except AttributeError:
            names = [each for each in dir(value) if not each.startswith("_")]
            where = module.__name__ if value is module else path.rpartition(".")[0]
            raise BadUsage(f"{where!r} has no {name!r}{_near(name, names)}") from None
    return value


def _near(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _members(value: object, target: str) -> list[object]:
    if isinstance(value, Mapping):
        members = list(cast("Mapping[object, object]", value).values())
    elif isinstance(value, (list, tuple, set, frozenset)):
        members = list(cast("Iterable[object]", value))
    else:
        return [value]
    if not members:
        raise BadUsage(f"{target!r} holds no tools: it is empty")
    return members


def _tool(value: object, target: str) -> Tool[..., Any]:
    try:
        if _is_tool(value):
            _ = value.schema  # a method's is made only now
            return value
        if callable(value) and not isinstance(value, type):
            return Tool(value)
    except (TypeError, ValueError) as exc:
        raise BadUsage(f"no tool can be made of {target!r}: {exc}") from exc
    sort = "a class" if isinstance(value, type) else f"a value of type {type(value).__name__}"
    raise BadUsage(
        f"{target!r} leads to {sort}; name a Tool, a function, or a list, tuple or dict of them"
    )


def _is_tool(value: object) -> TypeGuard[Tool[..., Any]]:
    return isinstance(value, Tool)


def _tools_among(values: Iterable[object]) -> list[Tool[..., Any]]:
    """The Tools among *values*, once each: a module may have one under two names."""
    return list({id(value): value for value in values if _is_tool(value)}.values())


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
