"""What is in the JSON of a server's event: read by kind, and refused by name. Pure.

Above: the readers of streams. Below: nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast


class Malformed(ValueError):
    """A chunk is JSON, but not what the protocol says."""


def an_object(value: object) -> Mapping[str, Any]:
    """*value*, which is an object; an empty one for null."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Malformed(f"{type(value).__name__} where an object belongs")
    return cast("Mapping[str, Any]", value)


def objects(value: object) -> Sequence[Mapping[str, Any]]:
    """*value*, which is a list of objects; an empty one for null."""
    if value is None:
        return ()
    if not isinstance(value, list):
        raise Malformed(f"{type(value).__name__} where a list belongs")
    return [an_object(item) for item in cast("list[object]", value)]


def text_in(value: object) -> str:
    """*value*, which is text, null, or (from a few servers) a list of parts that have text."""
    if value is None:
        return ""
    if isinstance(value, list):
        parts = (an_object(part).get("text") for part in cast("list[object]", value))
        return "".join(part for part in parts if isinstance(part, str))
    if not isinstance(value, str):
        raise Malformed(f"{type(value).__name__} where text belongs")
    return value


def count(given: Mapping[str, Any], field: str, within: str | None = None) -> int:
    """The number under *field*, or under *field* of the object *within*; 0 if there is none."""
    place = given if within is None else given.get(within)
    value = cast("Mapping[str, object]", place).get(field) if isinstance(place, dict) else 0
    return value if isinstance(value, int) else 0
