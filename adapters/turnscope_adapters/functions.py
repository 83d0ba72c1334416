"""Function definitions of OpenAI's APIs as tools, and tools as definitions. Pure.

`from_function` is for those who have definitions by hand, or from a library, and a callable for
each; `to_function` for those who send requests by themselves. Above: whoever makes an Agent or a
turn, and the models of `openai`. Below: the kernel's Tool.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar, cast

from turnscope import Tool

__all__ = ["from_function", "to_function"]

R = TypeVar("R")

_NO_ARGUMENTS: Final[Mapping[str, Any]] = {"type": "object", "properties": {}}
_FIELDS: Final = ("type", "name", "description", "parameters", "strict")
_WANTED: Final = {
    "description": (str, "a text"),
    "parameters": (Mapping, "a JSON schema, which is a mapping"),
    "strict": (bool, "true or false"),
}
_LIKE: Final = '{"type": "function", "function": {"name": "...", "parameters": {...}}}'


def from_function(
    definition: Mapping[str, Any], fn: Callable[..., R], /, **options: Any
) -> Tool[..., R]:
    """A tool that models are shown as *definition* says, and whose calls run *fn*::

        weather = from_function(
            {"type": "function", "function": {"name": "weather", "parameters": {...}}},
            get_weather,
            read_only=True,
        )

    *definition* is one of Chat Completions, as above; of the Responses API, where name and the rest
    stand beside the type; or what stands under "function" alone. Without parameters it is a
    function of none, without a description the docstring of *fn* is the description. ``strict``
    says how a server is to decode, and is not kept.

    Arguments are validated against the parameters, a JSON schema, and are given to *fn* by name, as
    the JSON has them. *fn* is a ``def``, which runs in a thread, or an ``async def``, which runs in
    the event loop; *options* are those of `turnscope.tool`, and come before the definition.

    Raises TypeError for a definition that is no mapping, for a field of another type than it should
    have, and for an *fn* that cannot be called with the arguments that the schema promises, naming
    the parameter; ValueError for a definition of something else than a function, or without a name;
    and what `turnscope.Tool` raises, such as ValueError for what is no schema.
    """
    function = _function(definition)
    name = function.get("name")
    if not isinstance(name, str) or not name:
        raise ValueError(
            f"the definition of a function needs a name, a text: {_LIKE}; got {name!r}"
        )
    for field, (kind, wanted) in _WANTED.items():
        value = function.get(field)
        if value is not None and not isinstance(value, kind):
            raise TypeError(
                f"{field!r} in the definition of {name!r} is {wanted}, not {type(value).__name__}"
            )
    odd = sorted(function.keys() - set(_FIELDS), key=str)
    if function.get("parameters") is None and odd:
        raise ValueError(
            f"the definition of {name!r} has no 'parameters', but {', '.join(map(repr, odd))}: the "
            "schema of its arguments stands under 'parameters'; leave both out if it takes none"
        )
    given: dict[str, Any] = {
        "name": name,
        "description": function.get("description"),
        "schema": function.get("parameters") or _NO_ARGUMENTS,
        **options,
    }
    made: Tool[..., R] = Tool(fn, **given)
    _check_parameters(made, fn)
    return made


def to_function(tool: Tool[..., Any], /, *, flat: bool = False) -> dict[str, Any]:
    """The definition of *tool* for requests to Chat Completions, or *flat*, to the Responses API.

    The description is left out if there is none. The parameters are the tool's own schema, not a
    copy: to be sent, and not to be changed.
    """
    fields: dict[str, Any] = {"name": tool.name}
    if tool.description:
        fields["description"] = tool.description
    fields["parameters"] = tool.schema
    if flat:
        return {"type": "function", **fields}
    return {"type": "function", "function": fields}


def _function(definition: object) -> Mapping[str, Any]:
    """The fields of the function that *definition* is of, in whichever form."""
    if not isinstance(definition, Mapping):
        raise TypeError(
            f"the definition of a function is a mapping, like {_LIKE}, not "
            f"{type(definition).__name__}; its callable comes second"
        )
    fields = cast("Mapping[str, Any]", definition)
    kind = fields.get("type", "function")
    if kind != "function":
        raise ValueError(
            f"{kind!r} is no function, so no callable can answer it: what a server runs by itself "
            "goes into the settings of its model"
        )
    inner = fields.get("function", fields)
    if not isinstance(inner, Mapping):
        raise TypeError(
            f"what stands under 'function' is a mapping, like {_LIKE}, not {type(inner).__name__}"
        )
    return cast("Mapping[str, Any]", inner)


def _check_parameters(tool: Tool[..., Any], fn: Callable[..., Any]) -> None:
    """Raise TypeError if arguments that are valid need not fit *fn*: not only when they come."""
    try:
        parameters = inspect.signature(fn).parameters
    except ValueError:  # of some that are written in C
        return
    named = {
        name: each
        for name, each in parameters.items()
        if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
    }
    promised: Mapping[str, Any] = tool.schema.get("properties", {})
    required: list[str] = tool.schema.get("required", [])
    if not any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        for name in promised:
            if name not in named:
                raise TypeError(
                    f"the definition of {tool.name!r} has the parameter {name!r}, which its "
                    "function does not take by name: add it there, or take **kwargs"
                )
    for name, each in parameters.items():
        if each.kind in (each.VAR_KEYWORD, each.VAR_POSITIONAL) or each.default is not each.empty:
            continue
        if name not in named or name not in promised:
            raise TypeError(
                f"the function of {tool.name!r} needs {name!r}, which its definition does not "
                "have, or which it does not take by name: give it a default, or put it among the "
                "properties (the context of a call is turnscope.current_call())"
            )
        if name not in required:
            raise TypeError(
                f"the function of {tool.name!r} needs {name!r}, which a model may leave out: give "
                "it a default, or put it under 'required' in the definition"
            )
