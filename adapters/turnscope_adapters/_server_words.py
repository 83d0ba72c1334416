"""What a server says when it refuses, and the key that must not be repeated with it. Pure.

Servers echo what they were sent, in error messages and headers; so every word of theirs that
enters an error goes through `Secret.hidden` first. Above: `_http`, the readers of streams, the
models. Below: nothing.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final, cast

_LONGEST: Final = 500
"""Characters of a server's words that an error repeats."""
_SHORTEST: Final = 8
"""Characters of a key that is one: what is shorter, like "none", is no secret, but is in words."""
_TAGS: Final = re.compile(r"(?is)<(script|style)\b.*?</\1\s*>|<[^<>]*>")


class Secret:
    """A key, or its absence: never shown, only sent.

    Raises ValueError for a key that cannot stand in a header: the HTTP library would refuse it
    with an error that shows it.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str | None, origin: str) -> None:
        value = (value or "").strip()  # a key that was read from a file ends in a newline
        if not all("!" <= character <= "~" for character in value):
            raise ValueError(f"{origin} is no key: it has spaces, or characters beyond ASCII")
        self._value = value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __repr__(self) -> str:
        return "<a key>" if self._value else "<no key>"

    def signing(self, header: str, form: str) -> Callable[[Any], Any]:
        """What puts the key into *header* of a request, in the braces of *form*.

        It is what HTTP clients take as ``auth=``.
        """

        def sign(request: Any) -> Any:
            request.headers[header] = form.format(self._value)
            return request

        return sign

    def hidden(self, text: str) -> str:
        """*text* without the key."""
        return text.replace(self._value, "[the key]") if len(self._value) >= _SHORTEST else text

    def hide(self, exc: BaseException | None) -> None:
        """Take the key out of what *exc*, and the exceptions that it came from, would show."""
        seen: set[int] = set()
        while exc is not None and id(exc) not in seen:
            seen.add(id(exc))
            if (told := f"{exc} {exc.args!r}") != self.hidden(told):
                exc.args = (self.hidden(str(exc)),)
            exc = exc.__cause__ or exc.__context__


def shown(text: str, secret: Secret) -> str:
    """*text* on one line, fit for an error: no key, no control characters, 500 characters."""
    text = secret.hidden(text)
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def words_of(body: str, secret: Secret) -> str:
    """What *body* says for a human: the message in its JSON, the text in its HTML, or all of it."""
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return shown(_TAGS.sub(" ", body) if "<" in body else body, secret)
    return shown(next(_messages(parsed), body), secret)


def _messages(value: object) -> Iterator[str]:
    """The messages in *value*, in any of the shapes that servers give to an error."""
    if isinstance(value, str) and value.strip():
        yield value
    elif isinstance(value, list):
        for item in cast("list[object]", value)[:1]:
            yield from _messages(item)
    elif isinstance(value, dict):
        for field in ("error", "message", "detail", "msg"):
            yield from _messages(cast("dict[str, object]", value).get(field))


def status_of(error: object) -> int | None:
    """The HTTP status that an error in the middle of a stream names, if it names one."""
    if isinstance(error, dict):
        fields = cast("dict[str, object]", error)
        for value in (fields.get("status"), fields.get("code"), fields.get("status_code")):
            text = str(value)
            if re.fullmatch(r"[45]\d\d", text):
                return int(text)
        return status_of(fields.get("error"))
    return None


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """The seconds that the server asks to wait, at *now* in seconds of the Unix clock.

    None if it asks nothing, or nothing that can be understood.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) * unit
        except (KeyError, ValueError):
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    then = _date(headers.get("retry-after"))
    if then is None:
        return None
    # By the server's own clock where it is given: the two may differ by more than the wait.
    sent = _date(headers.get("date"))
    return max(0.0, then - (now if sent is None else sent))


def _date(text: str | None) -> float | None:
    try:
        return None if text is None else parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
