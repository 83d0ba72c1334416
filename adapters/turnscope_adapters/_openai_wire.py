"""From a ModelRequest to the body of a Chat Completions request. Pure.

Everything is converted anew for each request: 0.3 us a message, where making it JSON takes
1 us, and is done each time anyway, because the server remembers nothing. Above: `openai`. Below:
`_bodies`, `functions`, and the kernel's values.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any, Final

from turnscope import AssistantMessage, Content, ModelError, ResultMessage, UserMessage
from turnscope.abc import ModelRequest

from ._bodies import described, encoded, kind_of, text_of
from ._strict import OPENAI, asked
from .functions import to_function

Plain = dict[str, Any]

_SOUNDS: Final = {
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/mpeg": "mp3",
    "audio/mp3": "mp3",
}


def request_body(name: str, request: ModelRequest, settings: Mapping[str, Any]) -> bytes:
    """The JSON that asks model *name* what *request* does; settings have the last word.

    *settings* are the model's, and the request's go over them; one that is None takes out the
    field of its name. Raises ModelError for a part of a prompt that the protocol cannot carry,
    and for settings that would turn streaming off.
    """
    body: Plain = {
        "model": name,
        "messages": _messages(request),
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if request.tools:
        body["tools"] = [to_function(tool) for tool in request.tools]
        # True is what every server does anyway, and some refuse a field that they do not know.
        if not request.parallel_tool_calls:
            body["parallel_tool_calls"] = False
    if request.output is not None:
        held = {"name": request.output.name, "schema": asked(request.output, OPENAI)}
        body["response_format"] = {"type": "json_schema", "json_schema": {**held, "strict": True}}
    return encoded(body, settings, request.settings)


def _messages(request: ModelRequest) -> list[Plain]:
    made: list[Plain] = []
    if request.instructions:
        made.append({"role": "system", "content": request.instructions})
    # Parts of results that are not text: a result cannot carry them, a prompt can, and it may come
    # only after all results of an answer.
    late: list[Plain] = []
    for message in request.history:
        if isinstance(message, ResultMessage):
            made.append(_result(message, late))
            continue
        if late:
            made.append({"role": "user", "content": late})
            late = []
        if isinstance(message, AssistantMessage):
            made.append(_answer(message))
        else:
            made.append({"role": "user", "content": _prompt(message)})
    if late:
        made.append({"role": "user", "content": late})
    return made


def _prompt(message: UserMessage) -> str | list[Plain]:
    if isinstance(message.content, str):
        return message.content
    made: list[Plain] = []
    for part in message.content:
        plain = _part(part)
        if plain is None:
            raise ModelError(
                f"Chat Completions cannot carry a part of type {part.media_type!r}"
                f"{'' if part.url is None else ' by its URL'} in a prompt: it takes text, images, "
                "and the bytes of PDF, WAV and MP3 files; check the part's media_type"
            )
        made.append(plain)
    return made


def _answer(message: AssistantMessage) -> Plain:
    # null beside calls is the protocol's own word for an answer without text.
    plain: Plain = {"role": "assistant", "content": message.text or None}
    if message.calls:
        plain["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in message.calls
        ]
    return plain


def _result(message: ResultMessage, late: list[Plain]) -> Plain:
    return {
        "role": "tool",
        "tool_call_id": message.id,
        "content": message.content
        if isinstance(message.content, str)
        else _as_text(message, message.content, late),
    }


def _as_text(message: ResultMessage, parts: Sequence[Content], late: list[Plain]) -> str:
    """*parts* as text; what is no text goes into *late*, if it can be sent at all."""
    texts: list[str] = []
    for part in parts:
        plain = _part(part)
        if plain is not None and plain["type"] == "text":
            texts.append(plain["text"])
            continue
        if plain is None:
            texts.append(described(part))
            continue
        size = "" if part.data is None else f" of {len(part.data):,} bytes"
        texts.append(f"[{part.media_type}{size}: in the message after the results]")
        late.append({"type": "text", "text": f"Of the result of call {message.id}:"})
        late.append(plain)
    return "\n".join(texts)


def _part(part: Content) -> Plain | None:
    """*part* as it may stand in a prompt; None if there is no form for it."""
    text, kind = text_of(part), kind_of(part)
    if text is not None:
        return {"type": "text", "text": text}
    if part.data is None:
        if kind.startswith("image/"):
            return {"type": "image_url", "image_url": {"url": part.url}}
        return None
    data = b64encode(part.data).decode("ascii")
    if kind.startswith("image/"):
        return {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{data}"}}
    if kind in _SOUNDS:
        return {"type": "input_audio", "input_audio": {"data": data, "format": _SOUNDS[kind]}}
    if kind == "application/pdf":
        file = {"filename": "file.pdf", "file_data": f"data:{kind};base64,{data}"}
        return {"type": "file", "file": file}
    return None
