"""What the model thought, between the stream that brings it and the request that takes it back.

The API wants thinking back as it was, in its place: a signed block, or one that is encrypted. A
`turnscope.Reasoning` keeps what it needs for that: whose it is, the block but for its text, and how
much of the answer came before it, since a message keeps its texts and its calls apart. Pure.
Above: `_anthropic_stream` writes it, `_anthropic_wire` reads it.
"""

from __future__ import annotations

from typing import Any, Final, cast

import attrs

from turnscope import Reasoning

_MARK: Final = "anthropic"
"""Stands in each of ours; what has it not is another provider's, and not for this one."""


@attrs.frozen
class Thought:
    """A thinking block, and its place in its message."""

    block: dict[str, Any]
    text: int
    """How many characters of the message's text come before it."""
    calls: int
    """How many of its calls do."""


def kept(block: dict[str, Any], text: int, calls: int) -> dict[str, Any]:
    """What a ReasoningDelta says of *block*, which ends a part: JSON data."""
    return {_MARK: block, "after": [text, calls]}


def thought(part: Reasoning) -> Thought | None:
    """The block that *part* was; None if it is not ours, or unsigned, which the API refuses.

    It may come out of a stored history, so nothing in it is taken for granted.
    """
    opaque: object = part.opaque
    if not isinstance(opaque, dict):
        return None
    fields = cast("dict[str, object]", opaque)
    block, after = fields.get(_MARK), fields.get("after")
    if not isinstance(block, dict) or not isinstance(after, list):
        return None
    match cast("dict[str, object]", block), cast("list[object]", after):
        case {"type": "thinking", "signature": str(signature)}, [int(text), int(calls)] if (
            signature
        ):
            whole = {"type": "thinking", "thinking": part.text, "signature": signature}
        case {"type": "redacted_thinking", "data": str(data)}, [int(text), int(calls)]:
            whole = {"type": "redacted_thinking", "data": data}
        case _:
            return None
    return Thought(whole, text, calls)
