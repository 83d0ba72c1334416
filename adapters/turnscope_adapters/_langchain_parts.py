"""What a result is made of: LangChain's content blocks, and turnscope's Content. Pure.

Above: `langchain`. Below: `langchain_core`, and the kernel's values.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

from langchain_core.messages import ToolMessage

from turnscope import Content

_KINDS: Final = {"image": "image/*", "audio": "audio/*", "video": "video/*"}
_DEFAULT: Final = "application/octet-stream"


def content_of(message: ToolMessage) -> str | list[Content]:
    """What *message* says: as text if it is nothing else.

    Raises ValueError for bytes that are no base64.
    """
    if isinstance(message.content, str):
        return message.content
    return [_part(cast("Mapping[str, Any]", block)) for block in message.content_blocks]


def blocks_of(parts: Iterable[Content]) -> list[dict[str, Any]]:
    """*parts* as LangChain's standard content blocks."""
    return [_block(part) for part in parts]


def _part(block: Mapping[str, Any]) -> Content:
    kind = str(block.get("type"))
    media_type = block.get("mime_type") or _KINDS.get(kind, _DEFAULT)
    if isinstance(text := block.get("text"), str):
        return Content(text=text)
    if isinstance(data := block.get("base64"), str):
        return Content(media_type=media_type, data=b64decode(data, validate=True))
    if isinstance(url := block.get("url"), str):
        return Content(media_type=media_type, url=url)
    known = block.get("value", block) if kind == "non_standard" else block
    return Content(media_type="application/json", text=json.dumps(known, default=str))


def _block(part: Content) -> dict[str, Any]:
    if part.text is not None:
        return {"type": "text", "text": part.text}
    kind = part.media_type.partition("/")[0]
    block = {
        "type": kind if kind in _KINDS else "file",
        "mime_type": part.media_type,
    }
    if part.data is not None:
        return {**block, "base64": b64encode(part.data).decode("ascii")}
    return {**block, "url": part.url}
