"""What ``MODULE:NAME`` leads to: the tools, or the model, in a module that is imported for it.

The current folder is looked in first. Above: `_tool_pages`, `_run_command` and `_model_names`.
Below: the public names of `turnscope`. Whatever is not found, or is something else, is told with
what to write instead.
"""

from __future__ import annotations

import difflib
import importlib
import os
import pkgutil
import sys
import traceback
from collections.abc import Iterable, Mapping
from contextlib import redirect_stdout
from types import ModuleType
from typing import Any, TypeGuard, cast

from turnscope import Tool

from ._errors import BadUsage, Broken


def find(target: str) -> Iterable[Tool[..., Any]]:
    """The tools that *target* leads to, at least one.

    Raises BadUsage if it leads to none; Broken if the module cannot be imported.
    """
    module_name, colon, name = target.partition(":")
    if not module_name or module_name.startswith(".") or (colon and not name):
        raise BadUsage(f"{target!r} names no tools: write MODULE or MODULE:NAME")
    module = _imported(module_name)
    if not name:
        among = _tools_among(vars(module).values())
        if not among:
            raise BadUsage(
                f"the module {module_name!r} has no Tool; name a function of it, as "
                f"{module_name}:NAME"
            )
        return among
    return [_tool(each, target) for each in _members(_value(module, name), target)]


def named(target: str) -> object:
    """What ``MODULE:NAME`` leads to.

    Raises BadUsage if there is no such thing; Broken if the module cannot be imported.
    """
    module_name, _, name = target.partition(":")
    return _value(_imported(module_name), name)


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
