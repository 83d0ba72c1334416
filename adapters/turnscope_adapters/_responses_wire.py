"""From a ModelRequest to the body of a Responses request. Pure.

The server is asked to remember nothing: the whole conversation is sent each time, with the items
that it made and cannot do without. Above: `openai`. Below: `_bodies`, `functions`, and
`_responses_items`.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from typing import Any, Final

from turnscope import AssistantMessage, Content, ModelError, ResultMessage, UserMessage
from turnscope.abc import ModelRequest

from ._bodies import encoded, kind_of, merged, text_of
from ._responses_items import Kept
from ._strict import OPENAI, asked
from .functions import to_function

Plain = dict[str, Any]

_ENCRYPTED: Final = "reasoning.encrypted_content"
# OpenAI refuses a request for the reasoning of a model that has none. By the names of these, which
# are not to change; another that refuses takes the setting {"include": None}.
_THOUGHTLESS: Final = re.compile(r"(?:.*/)?(?:ft:)?(?:gpt-3|gpt-4|chatgpt-)|.*-chat(?:-|$)")
_OFFICE: Final = "application/vnd.openxmlformats-officedocument."
_FILES: Final = {
    "application/pdf": "pdf",
    "application/msword": "doc",
    "application/rtf": "rtf",
    "application/vnd.oasis.opendocument.text": "odt",
    f"{_OFFICE}wordprocessingml.document": "docx",
    f"{_OFFICE}presentationml.presentation": "pptx",
    f"{_OFFICE}spreadsheetml.sheet": "xlsx",
}


def request_body(
    name: str, host: str, request: ModelRequest, settings: Mapping[str, object]
) -> bytes:
    """The JSON that asks model *name* at *host* what *request* does; settings have the last word.

    *settings* are the model's, and the request's go over them; one that is None takes out the
    field of its name. Raises ModelError for a part of a prompt that the protocol cannot carry,
    and for settings that would turn streaming off.
    """
    settings = {**settings, **request.settings}
    body: Plain = {"model": name, "input": [], "stream": True, "store": False}
    if not _THOUGHTLESS.match(name):
        body["include"] = [_ENCRYPTED]
    if request.instructions:
        body["instructions"] = request.instructions
    if request.tools:
        body["tools"] = [
            # Left out, it is true, and then every field of a schema has to be required.
            {**to_function(tool, flat=True), "strict": False}
            for tool in request.tools
        ]
        # True is what every server does anyway, and some refuse a field that they do not know.
        if not request.parallel_tool_calls:
            body["parallel_tool_calls"] = False
    forgets = settings.get("store", False) is False
    body["input"] = _items(request, host, forgets=forgets)
    text: Plain = {}
    if request.output is not None:
        held = {"name": request.output.name, "schema": asked(request.output, OPENAI)}
        text = merged("text", {"format": {"type": "json_schema", **held, "strict": True}}, settings)
    return encoded(body, settings, text)


def _items(request: ModelRequest, host: str, *, forgets: bool) -> list[Plain]:
    made: list[Plain] = []
    for message in request.history:
        if isinstance(message, UserMessage):
            made.append({"role": "user", "content": _prompt(message)})
        elif isinstance(message, AssistantMessage):
            made += _answer(message, host, forgets=forgets)
        else:
            output = _output(message)
            made.append({"type": "function_call_output", "call_id": message.id, "output": output})
    return made


def _prompt(message: UserMessage) -> str | list[Plain]:
    if isinstance(message.content, str):
        return message.content
    made: list[Plain] = []
    for part in message.content:
        plain = _part(part)
        if plain is None:
            raise ModelError(
                f"the Responses API cannot carry a part of type {part.media_type!r}"
                f"{'' if part.url is None else ' by its URL'} in a prompt: it takes text, images, "
                "PDF and office files; check the part's media_type"
            )
        made.append(plain)
    return made


def _answer(message: AssistantMessage, host: str, *, forgets: bool) -> list[Plain]:
    """The items of an answer, with those that were kept at their places."""
    made: list[Plain] = []
    said = called = 0
    phase: object = None

    def go_on(text: int | None, calls: int | None) -> None:
        nonlocal said, called
        if (words := message.text[said:text]).strip():
            plain: Plain = {"role": "assistant", "content": words}
            made.append(plain if phase is None else {**plain, "phase": phase})
        for call in message.calls[called:calls]:
            function = {"name": call.name, "arguments": call.arguments}
            made.append({"type": "function_call", "call_id": call.id, **function})
        said, called = max(said, text or 0), max(called, calls or 0)

    for part in message.reasoning:
        kept = Kept.of(part.opaque, host)
        if kept is None:
            continue
        go_on(kept.text, kept.calls)
        if kept.item.get("type") == "message":
            phase = kept.item.get("phase")
        elif not forgets or _is_whole(kept.item):
            made.append(dict(kept.item))
    go_on(None, None)
    # Of an answer that was cut: reasoning of which nothing came is refused.
    while made and made[-1].get("type") == "reasoning":
        made.pop()
    return made


def _is_whole(item: Mapping[str, object]) -> bool:
    """Whether *item* means something to a server that has not stored it."""
    if item.get("type") != "reasoning":
        return True
    return bool(item.get("encrypted_content") or item.get("content"))


def _output(message: ResultMessage) -> str | list[Plain]:
    if isinstance(message.content, str):
        return message.content
    made = [_part(part) or _described(part) for part in message.content]
    if all(part["type"] == "input_text" for part in made):  # which every server takes
        return "\n".join(part["text"] for part in made)
    return made


def _described(part: Content) -> Plain:
    if part.data is None:
        return {"type": "input_text", "text": f"[{part.media_type}: {part.url}]"}
    size = f"{part.media_type} of {len(part.data):,} bytes"
    return {"type": "input_text", "text": f"[{size}, which cannot be shown here]"}


def _part(part: Content) -> Plain | None:
    """*part* as it may stand in a prompt or a result; None if there is no form for it."""
    text = text_of(part)
    if text is not None:
        return {"type": "input_text", "text": text}
    kind = kind_of(part)
    url = part.url
    if part.data is not None:
        url = f"data:{kind};base64,{b64encode(part.data).decode('ascii')}"
    if kind.startswith("image/"):
        return {"type": "input_image", "image_url": url, "detail": "auto"}
    if kind not in _FILES:
        return None
    if part.data is None:
        return {"type": "input_file", "file_url": url}
    return {"type": "input_file", "filename": f"file.{_FILES[kind]}", "file_data": url}
