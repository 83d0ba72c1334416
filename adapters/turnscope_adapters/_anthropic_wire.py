"""From a ModelRequest to the body of a Messages request. Pure.

The API wants prompts and answers by turns, so what stands between two answers is one message: all
results first, then what was asked. Above: `anthropic`. Below: `_anthropic_thinking`, `_bodies`, and
the kernel's values.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

from turnscope import AssistantMessage, Content, ModelError, ResultMessage, Status, UserMessage
from turnscope.abc import ModelRequest

from ._anthropic_thinking import Thought, thought
from ._bodies import described, encoded, kind_of, merged, text_of
from ._strict import ANTHROPIC, asked

Plain = dict[str, Any]

_MAX_TOKENS: Final = 16_384
"""Of an answer, where settings say no other: the API has no default. Today's models can do it."""
_IMAGES: Final = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
_NOT_IN_IDS: Final = re.compile(r"[^a-zA-Z0-9_-]")


def request_body(name: str, request: ModelRequest, settings: Mapping[str, Any]) -> bytes:
    """The JSON that asks model *name* what *request* does; settings have the last word.

    *settings* are the model's, and the request's go over them; one that is None takes out the
    field of its name. Raises ModelError for a part of a prompt that the protocol cannot carry,
    and for settings that would turn streaming off.
    """
    body: Plain = {"model": name, "max_tokens": _MAX_TOKENS, "stream": True}
    if request.instructions and request.instructions.strip():
        body["system"] = request.instructions
    body["messages"] = _messages(request)
    choice: Plain = {}
    if request.tools:
        body["tools"] = [
            {
                "name": tool.name,
                **({"description": tool.description} if tool.description else {}),
                "input_schema": tool.schema,
            }
            for tool in request.tools
        ]
        if not request.parallel_tool_calls:
            choice = _one_at_a_time(request.settings, settings)
    config: Plain = {}
    if request.output is not None:
        held = {"type": "json_schema", "schema": asked(request.output, ANTHROPIC)}
        config = merged("output_config", {"format": held}, settings, request.settings)
    return encoded(body, settings, request.settings, choice, config)


def _one_at_a_time(*settings: Mapping[str, Any]) -> Plain:
    """The setting that asks for one call at a time, added to the choice that *settings* make.

    The first that makes one counts. Nothing is added to that of no tool, or of no such field.
    """
    auto: Plain = {"type": "auto"}
    given: object = next((each["tool_choice"] for each in settings if "tool_choice" in each), auto)
    choice = cast("Plain", given) if isinstance(given, dict) else {}
    if choice.get("type") not in ("auto", "any", "tool"):
        return {}
    return {"tool_choice": {"disable_parallel_tool_use": True, **choice}}


class _Ids:
    """The ids of calls, as the API takes them: other providers' have more characters."""

    def __init__(self) -> None:
        self._sent: dict[str, str] = {}
        self._taken: set[str] = set()

    def of(self, call_id: str) -> str:
        """What *call_id* is sent as: the same for a call and its result, and for no other."""
        if call_id not in self._sent:
            sent = plain = _NOT_IN_IDS.sub("_", call_id)
            number = 1
            while sent in self._taken:
                number += 1
                sent = f"{plain}-{number}"
            self._sent[call_id] = sent
            self._taken.add(sent)
        return self._sent[call_id]


def _messages(request: ModelRequest) -> list[Plain]:
    made: list[Plain] = []
    ids = _Ids()
    asked: list[Plain] = []
    """What goes into the next message that is not an answer."""
    for message in request.history:
        if isinstance(message, ResultMessage):
            asked.append(_result(message, ids))
        elif isinstance(message, UserMessage):
            asked.extend(_prompt(message))
        elif blocks := _answer(message, ids):
            if asked:
                made.append(_asking(asked))
                asked = []
            made.append({"role": "assistant", "content": blocks})
    if asked:
        made.append(_asking(asked))
    return made


def _asking(blocks: list[Plain]) -> Plain:
    alone = blocks[0] if len(blocks) == 1 else {}
    return {"role": "user", "content": alone.get("text", blocks)}


def _prompt(message: UserMessage) -> Iterable[Plain]:
    if isinstance(message.content, str):
        yield {"type": "text", "text": message.content}
        return
    for part in message.content:
        plain = _part(part)
        if plain is None:
            raise ModelError(
                f"the Messages API cannot carry a part of type {part.media_type!r}"
                f"{'' if part.url is None else ' by its URL'} in a prompt: it takes text, PDF, and "
                "images that are JPEG, PNG, GIF or WebP; check the part's media_type"
            )
        if not _is_blank(plain):
            yield plain


def _answer(message: AssistantMessage, ids: _Ids) -> list[Plain]:
    """The blocks of an answer: its texts and calls, and between them what was thought."""
    blocks: list[Plain] = []
    text = calls = 0  # how much of each has been put there

    def advance(to_text: int, to_calls: int) -> None:
        nonlocal text, calls
        to_text, to_calls = max(text, to_text), max(calls, to_calls)
        said = {"type": "text", "text": message.text[text:to_text]}
        if not _is_blank(said):
            blocks.append(said)
        for call in message.calls[calls:to_calls]:
            arguments = json.loads(cast("str", call.arguments))  # as a history has checked
            blocks.append(
                {"type": "tool_use", "id": ids.of(call.id), "name": call.name, "input": arguments}
            )
        text, calls = to_text, to_calls

    for one in _thoughts(message):
        advance(one.text, one.calls)
        blocks.append(one.block)
    advance(len(message.text), len(message.calls))
    # No answer may end with a thought, as one does that was cut there.
    while blocks and blocks[-1]["type"] in ("thinking", "redacted_thinking"):
        blocks.pop()
    return blocks


def _thoughts(message: AssistantMessage) -> Iterable[Thought]:
    return filter(None, map(thought, message.reasoning))


def _result(message: ResultMessage, ids: _Ids) -> Plain:
    content: str | list[Plain]
    if isinstance(message.content, str):
        content = message.content
    else:
        parts = (_part(part) or _text(described(part)) for part in message.content)
        content = [part for part in parts if not _is_blank(part)]
    plain: Plain = {"type": "tool_result", "tool_use_id": ids.of(message.id)}
    if content:
        plain["content"] = content
    if message.status is not Status.OK:
        plain["is_error"] = True
    return plain


def _part(part: Content) -> Plain | None:
    """*part* as a block, in a prompt or a result; None if there is no form for it."""
    text, kind = text_of(part), kind_of(part)
    if text is not None:
        return _text(text)
    image, document = kind.startswith("image/"), kind == "application/pdf"
    block = "image" if image else "document"
    if part.data is None:
        if image or document:
            return {"type": block, "source": {"type": "url", "url": part.url}}
        return None
    if kind in _IMAGES or document:
        data = b64encode(part.data).decode("ascii")
        source = {"type": "base64", "media_type": kind, "data": data}
        return {"type": block, "source": source}
    return None


def _text(text: str) -> Plain:
    return {"type": "text", "text": text}


def _is_blank(block: Plain) -> bool:
    """Whether *block* is text that says nothing: the API refuses to be sent one."""
    return block["type"] == "text" and not block["text"].strip()
