"""What the bodies of all requests have in common: settings, JSON, the kinds of content. Pure.

Above: the files that make a request of one API each. Below: the kernel's values.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, cast

from turnscope import Content, ModelError

_TEXTS: Final = frozenset({"application/json", "application/xml", "application/yaml"})


def encoded(body: Mapping[str, Any], *settings: Mapping[str, Any]) -> bytes:
    """*body* as JSON, with *settings* over it, the later over the earlier.

    One that is None takes out the field of its name. Raises ModelError for settings that would
    turn streaming off.
    """
    whole = dict(body)
    for given in settings:
        whole.update(given)
    whole = {field: value for field, value in whole.items() if value is not None}
    if whole.get("stream") is not True:
        raise ModelError("the setting 'stream' is not for changing: answers are read as they come")
    text = json.dumps(whole, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8", "replace")  # half a surrogate pair is no text, and becomes a ?


def merged(field: str, ours: Mapping[str, Any], *settings: Mapping[str, Any]) -> dict[str, Any]:
    """The setting *field* as *settings* give it, the later over the earlier, beside *ours*.

    Theirs counts where both say something. Nothing, if it is to be taken out.
    """
    given: object = {}
    for each in settings:
        given = each.get(field, given)
    if not isinstance(given, Mapping):
        return {}
    return {field: {**ours, **cast("Mapping[str, Any]", given)}}


def kind_of(part: Content) -> str:
    """The media type of *part* without its parameters."""
    return part.media_type.partition(";")[0].strip().lower()


def text_of(part: Content) -> str | None:
    """*part* as text, if it is text, or the bytes of one; else None."""
    if part.text is not None:
        return part.text
    kind = kind_of(part)
    if part.data is not None and (kind.startswith("text/") or kind in _TEXTS):
        return part.data.decode("utf-8", "replace")
    return None


def described(part: Content) -> str:
    """What stands in the place of *part* where a protocol cannot carry it."""
    if part.url is not None:
        return f"[{part.media_type}: {part.url}]"
    size = "" if part.data is None else f" of {len(part.data):,} bytes"
    return f"[{part.media_type}{size}, which cannot be shown here]"
