"""What a conversation is made of: the messages that a model is sent, and what it has used.

Frozen, storable values: no live object, no exception, no value of a tool is in them. Above: the
history, which holds them in an order that providers accept. Below: the values of a call.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import attrs

from ._calls import Content, Status, ToolCall
from ._record import Record


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Usage(Record):
    """What model requests have used, in tokens; Usages add up with ``+``."""

    input_tokens: int = 0
    """Of the prompt: instructions, history and tools, the cached ones included."""
    output_tokens: int = 0
    """Of the answer: text, calls and reasoning."""
    cached_tokens: int = 0
    """Those of the input that the server had in a cache."""
    reasoning_tokens: int = 0
    """Those of the output that were reasoning."""

    @property
    def tokens(self) -> int:
        """Input and output together: what ``Budget(tokens=...)`` counts."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
        )


@attrs.frozen(eq=False, repr=False)
class Reasoning(Record):
    """A part of what a model thought before it answered."""

    text: str
    opaque: Any = None
    """What the provider wants back unchanged, such as a signature: JSON data, or None."""


@attrs.frozen(eq=False, repr=False)
class UserMessage(Record):
    """What was asked: text, or parts of which some are not text."""

    content: str | tuple[Content, ...]


@attrs.frozen(kw_only=True, eq=False, repr=False)
class AssistantMessage(Record):
    """What a model answered: text, calls, or both."""

    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    """In call order, with ids that are unique in their history, and arguments as the JSON text of
    an object."""
    reasoning: tuple[Reasoning, ...] = ()


class UnfrozenMessage(Record):
    """What is to become a `ResultMessage`, by `frozen`."""

    __slots__ = ("__weakref__", "content", "id", "name", "status")

    def __init__(
        self, id: str, name: str, status: Status, content: str | tuple[Content, ...]
    ) -> None:
        self.id: str = id
        self.name: str = name
        self.status: Status = status
        self.content: str | tuple[Content, ...] = content


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ResultMessage(UnfrozenMessage):
    """The one answer to a call, as the model reads it."""

    id: str
    """That of the call."""
    name: str
    """That of the tool."""
    status: Status
    content: str | tuple[Content, ...]


Message: TypeAlias = UserMessage | AssistantMessage | ResultMessage


def user_message(prompt: str | Sequence[Content]) -> UserMessage:
    """The message that *prompt* is.

    Raises TypeError if it is neither text nor a sequence of Content, ValueError if it is empty.
    """
    if not isinstance(prompt, str):
        if not isinstance(prompt, Iterable):
            raise TypeError(
                "a prompt is a str, a sequence of Content, or None to go on from history=, not "
                f"{type(prompt).__name__}"
            )
        prompt = tuple(prompt)
        for part in prompt:
            if not isinstance(part, Content):
                raise TypeError(
                    f"a part of a prompt is a Content, not {type(part).__name__}: write "
                    "Content(text=...) for text"
                )
    if is_blank(prompt):
        raise ValueError("the prompt is empty; to go on from history=, pass None")
    return UserMessage(prompt)


def is_blank(content: str | tuple[Content, ...]) -> bool:
    """Whether *content* says nothing: no provider takes white space alone."""
    if isinstance(content, str):
        return not content.strip()
    return all(part.text is not None and not part.text.strip() for part in content)
