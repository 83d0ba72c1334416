"""A conversation as JSON text, and back. Pure.

The format says its version, so that a later one can read it. Reading trusts nothing: each mistake
is a ValueError that names the message. Above: the history. Below: the messages.
"""

from __future__ import annotations

import binascii
import json
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

import attrs

from ._calls import Content, Status, ToolCall
from ._messages import AssistantMessage, Message, Reasoning, ResultMessage, UserMessage

VERSION: Final = 1
# Characters: what is no JSON at all need not be kept whole, and would be paid for in each turn.
_LONGEST_WRAPPED: Final = 1_000


def is_object(arguments: object) -> bool:
    """Whether *arguments* is the JSON text of an object."""
    if not isinstance(arguments, str):
        return False
    text = arguments.strip(_BLANK)
    try:
        # Not by `decode`, which looks for the blanks by two regular expressions.
        value, end = _STRICT.raw_decode(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and end == len(text)


def _no_constant(name: str) -> object:
    """Refuse NaN and the infinities: Python reads them, and no provider does."""
    raise ValueError(f"{name} is not JSON")


_BLANK: Final = " \t\n\r"
# Made once: json.loads with a parse_constant makes a decoder each time, which takes 3 us.
_STRICT: Final = json.JSONDecoder(parse_constant=_no_constant)


def wrapped(text: str) -> str:
    """*text*, which is no JSON object, as one: providers refuse to be sent anything else."""
    return json.dumps({"INVALID_JSON": text[:_LONGEST_WRAPPED]}, ensure_ascii=False)


def storable(content: str | tuple[Content, ...]) -> str | tuple[Content, ...]:
    """*content* with its texts made `encodable`."""
    if isinstance(content, str):
        return encodable(content)
    return tuple(
        part if part.text is None else attrs.evolve(part, text=encodable(part.text))
        for part in content
    )


def encodable(text: str) -> str:
    """*text* without surrogates: they are in no encoding, so in no request.

    Two that make a character become it, since a server may cut its text between them.
    """
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def encoded(messages: Iterable[Message]) -> str:
    """*messages* as one line of JSON."""
    body = {"version": VERSION, "messages": [_plain(message) for message in messages]}
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _plain(message: Message) -> dict[str, Any]:
    if isinstance(message, UserMessage):
        return {"role": "user", "content": _plain_content(message.content)}
    if isinstance(message, ResultMessage):
        return {
            "role": "result",
            "id": message.id,
            "name": message.name,
            "status": str(message.status),
            "content": _plain_content(message.content),
        }
    plain: dict[str, Any] = {"role": "assistant", "text": message.text}
    if message.calls:
        plain["calls"] = [
            {"id": call.id, "name": call.name, "arguments": call.arguments}
            for call in message.calls
        ]
    if message.reasoning:
        plain["reasoning"] = [
            {"text": part.text, "opaque": part.opaque} for part in message.reasoning
        ]
    return plain


def _plain_content(content: str | tuple[Content, ...]) -> str | list[dict[str, str]]:
    if isinstance(content, str):
        return content
    return [_plain_part(part) for part in content]


def _plain_part(part: Content) -> dict[str, str]:
    plain = {"media_type": part.media_type}
    if part.text is not None:
        plain["text"] = part.text
    elif part.url is not None:
        plain["url"] = part.url
    elif part.data is not None:
        plain["data"] = b64encode(part.data).decode("ascii")
    return plain


def decoded(text: str | bytes) -> list[Message]:
    """The messages that `encoded` wrote; raises ValueError for anything else."""
    try:
        body: Any = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise ValueError(f"this is not a stored history: it is no JSON ({exc})") from exc
    if not isinstance(body, dict) or "messages" not in body:
        raise ValueError("this is not a stored history: it has no 'messages'")
    stored = cast("dict[str, Any]", body)
    if stored.get("version") != VERSION:
        raise ValueError(
            f"this history is of version {stored.get('version')!r}, and this turnscope reads "
            f"version {VERSION}: a newer one may read it"
        )
    listed: object = stored["messages"]
    if not isinstance(listed, list):
        raise ValueError(
            f"this is not a stored history: its 'messages' is a {type(listed).__name__}, not a list"
        )
    messages: list[Message] = []
    for number, plain in enumerate(cast("Iterable[Any]", listed)):
        try:
            messages.append(_message(_mapped(plain, "it")))
        except (KeyError, TypeError, ValueError) as exc:
            said = f"it has no {exc}" if isinstance(exc, KeyError) else str(exc)
            raise ValueError(f"message {number} of the stored history: {said}") from exc
    return messages


def _message(plain: Mapping[str, Any]) -> Message:
    role = plain["role"]
    if role == "user":
        return UserMessage(_content(plain["content"]))
    if role == "result":
        return ResultMessage(
            id=_text(plain, "id"),
            name=_text(plain, "name"),
            status=Status(plain["status"]),
            content=_content(plain["content"]),
        )
    if role == "assistant":
        return AssistantMessage(
            text=_text(plain, "text"),
            calls=tuple(
                _call(_mapped(call, "a call")) for call in _listed(plain.get("calls", []), "calls")
            ),
            reasoning=tuple(
                Reasoning(_text(part, "text"), part.get("opaque"))
                for part in (
                    _mapped(each, "a part of the reasoning")
                    for each in _listed(plain.get("reasoning", []), "reasoning")
                )
            ),
        )
    raise ValueError(f"its role is {role!r}, not user, assistant or result")


def _call(plain: Mapping[str, Any]) -> ToolCall:
    return ToolCall(_text(plain, "id"), _text(plain, "name"), _text(plain, "arguments"))


def _content(plain: object) -> str | tuple[Content, ...]:
    if isinstance(plain, str):
        return plain
    return tuple(_part(_mapped(part, "a part")) for part in _listed(plain, "its content"))


def _part(plain: Mapping[str, Any]) -> Content:
    data = plain.get("data")
    if data is not None:
        try:
            data = b64decode(data, validate=True)
        except (binascii.Error, TypeError) as exc:
            raise ValueError(f"the data of a part is no base64: {exc}") from exc
    text, url = (
        _text(plain, key) if plain.get(key) is not None else None for key in ("text", "url")
    )
    return Content(media_type=_text(plain, "media_type"), text=text, data=data, url=url)


def _listed(value: object, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{what} is a {type(value).__name__}, not a list")
    return list(cast("Iterable[Any]", value))


def _mapped(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{what} is a {type(value).__name__}, not an object")
    return cast("dict[str, Any]", value)


def _text(plain: Mapping[str, Any], key: str) -> str:
    value = plain[key]
    if not isinstance(value, str):
        raise TypeError(f"its {key!r} is a {type(value).__name__}, not a string")
    return value
