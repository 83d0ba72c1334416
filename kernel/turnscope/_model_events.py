"""What a model streams: the pieces of one response, frozen records. Public as `turnscope.events`.

Above: `events`, the assembler and the models. Below: the values.
"""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias

import attrs

from ._messages import Usage
from ._record import Record

FinishReason: TypeAlias = Literal["stop", "calls", "length", "refusal", "filtered"]
"""Why a response ended: it was complete; it asks for calls; it was cut at the limit of tokens; the
model would not; the provider would not."""


@attrs.frozen(eq=False, repr=False)
class TextDelta(Record):
    """More of the answer's text."""

    text: str


@attrs.frozen(eq=False, repr=False)
class ReasoningDelta(Record):
    """More of what the model thinks, or the end of a part of it, with what goes back unchanged."""

    text: str
    opaque: Any = None
    """What the provider wants back with this part: JSON data. It ends the part."""


@attrs.frozen(eq=False, repr=False)
class CallDelta(Record):
    """More of a call: the first one of an *index* names it, all of them bring arguments."""

    index: int
    """Which call of the response: calls are in call order by it. It need not be without gaps, but a
    call begins before any that comes after it in call order is sealed."""
    id: str | None = None
    """The server's id; None or "" where it gave none. The first counts."""
    name: str | None = None
    """The tool's name; the first counts."""
    arguments: str = ""
    """A piece of the JSON text of the arguments, cut anywhere."""


@attrs.frozen(eq=False, repr=False)
class CallSealed(Record):
    """The arguments of a call are complete: the protocol said so, or went on to the next.

    Never because what has come happens to be JSON: calls of some tools start at their seal.
    """

    index: int


_NOTHING: Final = Usage()


@attrs.frozen(eq=False, repr=False)
class ModelFinished(Record):
    """The response is complete; the last event of a stream. Without it the response has failed."""

    reason: FinishReason = "stop"
    usage: Usage = _NOTHING


@attrs.frozen(eq=False, repr=False)
class FellBack(Record):
    """A model failed before anything came of it; the request goes on to another, *model*."""

    model: str
    error: Exception


ModelEvent: TypeAlias = (
    TextDelta | ReasoningDelta | CallDelta | CallSealed | ModelFinished | FellBack
)
