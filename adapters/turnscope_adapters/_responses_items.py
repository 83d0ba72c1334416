"""Items that a model of the Responses API made and wants back: how they stand in a history. Pure.

A message of a history keeps its text, its calls and its reasoning apart, and the API wants the
items of a response back in the order in which it made them: reasoning before what came of it. So
each item that is kept says how much text and how many calls were before it. Above:
`_responses_stream`, which keeps them, and `_responses_wire`, which sends them back. Below: nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

import attrs

API: Final = "openai-responses"


@attrs.frozen
class Kept:
    """An item, and where in its response it stood."""

    item: Mapping[str, Any]
    """As the server made it; of a message, its ``type`` and its ``phase`` alone."""
    text: int
    """Characters of the response's text before it."""
    calls: int
    """Calls before it."""

    def opaque(self, host: str) -> dict[str, Any]:
        """This, as `ReasoningDelta.opaque`; *host* is the server's, the one who can read it."""
        place = [self.text, self.calls]
        return {"api": API, "host": host, "after": place, "item": dict(self.item)}

    @classmethod
    def of(cls, opaque: object, host: str) -> Kept | None:
        """What `opaque` has made at the same *host*; None for what comes from anybody else."""
        if not isinstance(opaque, dict):
            return None
        found = cast("dict[str, Any]", opaque)
        item, after = found.get("item"), found.get("after")
        if found.get("api") != API or found.get("host") != host or not isinstance(item, dict):
            return None
        match cast("object", after):
            case [int(text), int(calls)] if text >= 0 and calls >= 0:
                return cls(cast("dict[str, Any]", item), text, calls)
            case _:
                return None
