"""The JSON that servers send in pieces: parsed within bounds, read with types checked. Pure.

Above: the readers of streams. Below: `_server_words`. What is not as it should be is `Malformed`,
and makes a response `unreadable`, which is an error with the beginning of the chunk in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from turnscope import ModelError

from ._server_words import Secret, shown

_DEEPEST: Final = 100
"""Levels of objects and lists in a chunk; those of the protocols are below 20."""
_TOO_DEEP: Final = f"it has more than {_DEEPEST} levels"


class Malformed(ValueError):
    """A chunk is not what the protocol says; the sentence says where."""


def parsed(text: str) -> Mapping[str, Any]:
    """The object that *text* is the JSON of.

    Raises Malformed for anything else, and for one of more than 100 levels: what comes after may
    be recursive.
    """
    try:
        value: object = json.loads(text)
    except ValueError:
        raise Malformed("it is not JSON") from None
    except RecursionError:
        raise Malformed(_TOO_DEEP) from None
    if text.count("{") + text.count("[") > _DEEPEST:  # which few chunks have, at any level
        _check_depth(value)
    return object_in(value)


def _check_depth(value: object) -> None:
    level: list[object] = [value]
    for _ in range(_DEEPEST + 1):
        below: list[object] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(cast("dict[str, object]", item).values())
            elif isinstance(item, list):
                below.extend(cast("list[object]", item))
        if not below:
            return
        level = below
    raise Malformed(_TOO_DEEP)


def object_in(value: object) -> Mapping[str, Any]:
    """*value*, an object; an empty one for null."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Malformed(f"{type(value).__name__} where an object belongs")
    return cast("Mapping[str, Any]", value)


def objects_in(value: object) -> Sequence[Mapping[str, Any]]:
    """*value*, a list of objects; an empty one for null."""
    if value is None:
        return ()
    if not isinstance(value, list):
        raise Malformed(f"{type(value).__name__} where a list belongs")
    return [object_in(item) for item in cast("list[object]", value)]


def text_in(value: object) -> str:
    """*value*, which is text, null, or (from a few servers) a list of parts that have text."""
    if value is None:
        return ""
    if isinstance(value, list):
        parts = (object_in(part).get("text") for part in cast("list[object]", value))
        return "".join(part for part in parts if isinstance(part, str))
    if not isinstance(value, str):
        raise Malformed(f"{type(value).__name__} where text belongs")
    return value


def count(given: Mapping[str, Any], field: str, within: str | None = None) -> int:
    """The number under *field*, or under *field* of the object *within*; 0 if there is none."""
    place = given if within is None else given.get(within)
    value = cast("Mapping[str, object]", place).get(field) if isinstance(place, dict) else 0
    return value if isinstance(value, int) else 0


def unreadable(why: Malformed, text: str, secret: Secret) -> ModelError:
    """The error of a response with a chunk, *text*, that is not what the protocol says."""
    return ModelError(f"the server sent a chunk that cannot be read: {why}: {shown(text, secret)}")


def unfinished() -> ModelError:
    """The error of a response that ended before it was complete; it may pass by itself."""
    return ModelError("the server's stream ended before the response was complete", transient=True)
