"""What the steps of a plan came to: for code, as data for other steps, as text for the model. Pure.

Above: `_plan_tool`. Below: values, and the tools, which know the JSON of what they return.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import attrs

from ._calls import Content, Status, ToolResult
from ._errors import NotSerialisable
from ._tools import Tool

CAME_TO: Final = {
    Status.FAILED: "failed",
    Status.INVALID: "was not valid",
    Status.DENIED: "was denied",
    Status.TIMED_OUT: "timed out",
    Status.CANCELLED: "was cancelled",
    Status.NOT_STARTED: "was not started",
    Status.LOST: "was lost with its worker",
}
"""What became of a step that is not ok, in a sentence about one that needs it."""

_ROOM_FOR_A_WORD: Final = 80


def data_of(tool: Tool[..., Any], result: ToolResult) -> Any:
    """What a call of *tool* that was ok came to, as JSON data; a text is a text."""
    if isinstance(result.content, tuple):
        return _parts(result.content)
    try:
        text = tool.text_of(result.value)
        return text if isinstance(result.value, str) else json.loads(text)
    except (NotSerialisable, ValueError):
        # Changed since it was returned, by who kept it; or a number of more than 4,300 digits.
        return result.content


def _parts(parts: Sequence[Content]) -> Any:
    """Parts of a message as JSON data: one text alone as it is, bytes by their number."""
    if len(parts) == 1 and parts[0].text is not None:
        return parts[0].text
    return [
        {"media_type": part.media_type, "text": part.text}
        if part.text is not None
        else {"media_type": part.media_type, "url": part.url}
        if part.url is not None
        else {"media_type": part.media_type, "bytes": len(part.data or b"")}
        for part in parts
    ]


@attrs.frozen(eq=False, repr=False)
class PlanResults(Mapping[str, ToolResult]):
    """The result of each step, by its id, in the order of the plan: the ``value`` of a plan."""

    _results: Mapping[str, ToolResult]
    _data: Mapping[str, Any]
    """Of those that were ok, what they came to."""
    _limit: float
    """How many characters the model may read of it."""

    def __getitem__(self, name: str, /) -> ToolResult:
        return self._results[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._results)

    def __len__(self) -> int:
        return len(self._results)

    def __repr__(self) -> str:
        told = ", ".join(f"{name!r}: {result.status}" for name, result in self._results.items())
        return f"<PlanResults {told}>"

    def text(self) -> str:
        """For the model: a JSON list with the id, the status and the content of each step.

        If that is too long, the long contents are cut, each as text, so that every step is seen.
        """
        contents = [self._content(name, result) for name, result in self._results.items()]
        whole = self._written(contents)
        if len(whole) <= self._limit:
            return whole
        room = int(self._limit) - len(self._written([""] * len(contents)))
        lengths = [len(_json(content)) for content in contents]
        shares = shared(lengths, max(0, room))
        return self._written(list(map(_cut, contents, shares)))

    def _content(self, name: str, result: ToolResult) -> Any:
        if name in self._data and not result.leaked:
            return self._data[name]
        content = result.content  # of one that has leaked, it has a word of that
        return content if isinstance(content, str) else _parts(content)

    def _written(self, contents: Sequence[Any]) -> str:
        return _json(
            [
                {"id": name, "status": result.status, "content": content}
                for (name, result), content in zip(self._results.items(), contents, strict=True)
            ]
        )


def shared(lengths: Sequence[int], room: int) -> list[int]:
    """How much of *room* each of *lengths* gets: the short ones all they have, the rest alike."""
    shares = [0] * len(lengths)
    by_length = sorted(range(len(lengths)), key=lengths.__getitem__)
    for number, index in enumerate(by_length):
        shares[index] = min(lengths[index], room // (len(lengths) - number))
        room -= shares[index]
    return shares


def _cut(content: Any, share: int) -> Any:
    """*content*, if its JSON has at most *share* characters, or else the beginning of its text."""
    if len(_json(content)) <= share:
        return content
    text = content if isinstance(content, str) else _json(content)
    kept = max(0, share - _ROOM_FOR_A_WORD)
    while True:
        shown = f"{text[:kept]}\n[cut: {kept:,} of {len(text):,} characters are shown]"
        if not kept or len(_json(shown)) <= share:
            return shown
        kept = kept * 3 // 4  # what is escaped in JSON takes more than it has


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
