"""The items of a Responses stream while they grow, and which of them an event is about. Pure.

A response is a list of items, each of which begins, grows and is done; several may grow at once.
Servers differ in how they say which: by its place in the list, by an id, by both or by neither, and
with some, one of the two is the same for all or another in each event. Above: `_responses_stream`.
Below: `_chunks`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import attrs

from ._chunks import objects_in, text_in


@attrs.define(eq=False)
class GrowingItem:
    """An item as far as it has come."""

    kind: str
    place: int | None
    """The server's ``output_index``, which may be missing, or the same for all."""
    id: str
    call_id: str
    text_before: int
    calls_before: int
    """Also the index of a call: calls are counted as they begin."""
    arguments: str = ""
    """Of a call: those that came with its beginning, to be used if no others come."""
    pieces: list[str] = attrs.field(factory=list[str])
    """Of a call: those that were streamed."""
    streamed: bool = False
    """Whether any of it was."""
    part: object = None
    """Of reasoning: which part of its summary is being streamed."""
    done: bool = False
    """Whether it is whole."""
    ended: bool = False
    """Whether its last event has come, which may be one after that which made it whole."""


class GrowingItems:
    """All items of a response, in the order in which they began."""

    def __init__(self) -> None:
        self._items: list[GrowingItem] = []

    def begin(
        self, item: Mapping[str, Any], body: Mapping[str, Any], text: int, calls: int
    ) -> GrowingItem:
        """One more, *item* of the event *body*, after *text* characters and *calls* calls."""
        begun = GrowingItem(
            text_in(item.get("type")),
            _place(body),
            text_in(item.get("id")) or text_in(body.get("item_id")),
            text_in(item.get("call_id")),
            text,
            calls,
            arguments_in(item),
        )
        self._items.append(begun)
        return begun

    def of_event(self, kind: str, body: Mapping[str, Any]) -> GrowingItem | None:
        """The item of *kind* that the event *body* adds to: the latest one that fits."""
        return self._fitting(kind, _place(body), text_in(body.get("item_id")), "")

    def ended(self, item: Mapping[str, Any], body: Mapping[str, Any]) -> GrowingItem | None:
        """The one that *item* is, now that it is whole; None if it has not been begun."""
        place, call_id = _place(body), text_in(item.get("call_id"))
        found = self._fitting(text_in(item.get("type")), place, text_in(item.get("id")), call_id)
        if found is None or not found.ended:
            return found
        # Said twice, or another one under the same name?
        given = (place, call_id or None, text_in(item.get("id")) or None)
        known = (found.place, found.call_id or None, found.id or None)
        pairs = zip(given, known, strict=True)
        return None if any(a != b for a, b in pairs if None not in (a, b)) else found

    def unsealed(self) -> list[GrowingItem]:
        """The calls that are not done."""
        return [item for item in self._items if item.kind == "function_call" and not item.done]

    def _fitting(
        self, kind: str, place: int | None, item_id: str, call_id: str
    ) -> GrowingItem | None:
        alike = [item for item in self._items if item.kind == kind]
        if call_id:
            alike = [item for item in alike if item.call_id in ("", call_id)]
        placed = [item for item in alike if place is not None and item.place == place]
        named = [item for item in alike if item_id and item.id == item_id]
        fitting = [item for item in placed if item in named] or placed or named
        if not fitting and call_id:
            fitting = [item for item in alike if item.call_id]
        elif not fitting and place is None and not item_id:
            fitting = alike
        elif not fitting:  # another id in each event: good enough while only one call grows
            left = [item for item in alike if not item.ended and None in (place, item.place)]
            left = [item for item in left if not item.done] or left
            fitting = left if len(left) == 1 else []
        latest = [item for item in fitting if not item.ended] or fitting
        return latest[-1] if latest else None


def _place(body: Mapping[str, Any]) -> int | None:
    place = body.get("output_index")
    return place if isinstance(place, int) else None


def arguments_in(given: Mapping[str, Any]) -> str:
    """The JSON text of the arguments in *given*; "" if it has none."""
    arguments = given.get("arguments")
    if isinstance(arguments, dict):
        return json.dumps(arguments, ensure_ascii=False)
    return text_in(arguments)


def same_json(one: str, other: str) -> bool:
    """Whether two texts are the same JSON, written twice."""
    try:
        return bool(json.loads(one) == json.loads(other))
    except (ValueError, RecursionError):
        return False


def thoughts_in(item: Mapping[str, Any]) -> str:
    """What an item that was not streamed says of the model's thoughts, in plain text."""
    if item.get("type") != "reasoning":
        return ""
    parts = [*objects_in(item.get("summary")), *objects_in(item.get("content"))]
    return "\n\n".join(text for part in parts if (text := text_in(part.get("text"))))
