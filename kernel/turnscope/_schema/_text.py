"""Text for the model of what a tool returned.

Above: `_schema`, which gives it out. Below: pydantic's serialiser, which also knows plain data,
dataclasses, models, dates and paths; attrs classes are added here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence, Set
from typing import Final, cast

import attrs
import pydantic_core

from turnscope._errors import NotSerialisable

from . import _problems
from ._annotations import attributes


def to_text(name: str, value: object) -> str:
    """Make what the tool *name* returned into text for the model: a str as it is, the rest JSON.

    Raises `NotSerialisable`, naming the type that has no JSON form, or the whole value's where the
    part at fault is not known: what refers to itself, is nested too deep, or is no Unicode.
    """
    try:
        if isinstance(value, str):
            text = str.__str__(value)  # of a member of an enum its value
            if not text.isascii():
                text.encode()  # no provider takes lone surrogates
            return text
        json = pydantic_core.to_json(value, fallback=_plain, inf_nan_mode="strings")
        return json.decode()
    except Exception as error:
        _, unknown, culprit = str(error).partition(_UNKNOWN)
        if unknown:
            raise NotSerialisable(name, culprit, "it has no JSON form") from error
        raise NotSerialisable(name, _type_name(type(value)), _reason(error)) from error


def _plain(part: object) -> object:
    """*part*, which the serialiser does not know, as something that it may know."""
    if attrs.has(type(part)):
        return attributes(cast("attrs.AttrsInstance", part))
    if isinstance(part, Mapping):
        return dict(cast("Mapping[object, object]", part))
    if isinstance(part, (Sequence, Set)):
        return list(cast("Collection[object]", part))
    raise _NoForm(f"\0{_type_name(type(part))}")


class _NoForm(TypeError):
    """What `_plain` raises of its own, of a type; anything else comes out of the value."""


# The serialiser raises an error of its own that has the words of this one, and not itself.
_UNKNOWN: Final = f"{_NoForm.__name__}: \0"


def _reason(error: Exception) -> str:
    text = str(error).removeprefix("Error serializing to JSON: ").removeprefix("ValueError: ")
    if "id repeated" in text:
        return "it refers to itself"
    if "depth exceeded" in text or isinstance(error, RecursionError):
        return "it is nested too deep, or refers to itself"
    return _problems.cut(text or type(error).__name__)


def _type_name(kind: type) -> str:
    if kind.__module__ == "builtins":
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"
