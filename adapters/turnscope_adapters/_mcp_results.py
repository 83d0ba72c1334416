"""What a tool server answered to a call, as the value of a tool. Pure.

Above: `_mcp_connection`. Below: the types of the `mcp` package. An answer that cannot be read is a
ValueError.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from typing import Any, cast

import mcp_types as types

from turnscope import Content


def value_of(result: types.CallToolResult) -> Any:
    """Text if the answer is one text; data if it is structured; else the parts, as Content.

    Servers send structured data twice, as data and as text for those who do not know data. If the
    two say the same, the data is the value; what a server wrapped as ``{"result": ...}``, because
    the protocol wants an object, comes out of its wrapping. If they do not, nothing is dropped: the
    data is one more part, of JSON.
    """
    parts = parts_of(result.content)
    texts = [part.text for part in parts if part.text is not None]
    data = result.structured_content
    if data is not None:
        inner = _unwrapped(data)
        if len(texts) == len(parts):
            if not texts or _says(texts, data):
                return data
            if _says(texts, inner):
                return inner
        return [*parts, Content(media_type="application/json", text=json.dumps(data))]
    if not parts:
        return ""
    if len(parts) == 1 and parts[0].text is not None and parts[0].media_type == "text/plain":
        return parts[0].text
    return parts


def parts_of(blocks: Iterable[types.ContentBlock]) -> list[Content]:
    """Each block as Content; a resource is named by its address, then shown.

    Raises ValueError for data that is no base64.
    """
    return [part for block in blocks for part in _parts(block)]


def words_of(parts: Sequence[Content]) -> str:
    """What *parts* say, as text: those that are not text are named."""
    return "\n".join(_shown(part) for part in parts)


def _parts(block: types.ContentBlock) -> list[Content]:
    match block:
        case types.TextContent():
            return [Content(text=block.text)]
        case types.ImageContent() | types.AudioContent():
            return [Content(media_type=block.mime_type, data=_bytes(block.data))]
        case types.ResourceLink():
            # Not as an address for the model's provider to fetch: it is one of the server's own.
            kind = f", {block.mime_type}" if block.mime_type else ""
            about = f": {block.description}" if block.description else ""
            return [Content(text=f"[resource {block.uri} ({block.name}{kind}){about}]")]
        case types.EmbeddedResource():
            return [Content(text=f"[resource {block.resource.uri}]"), _held(block.resource)]


def _held(resource: types.TextResourceContents | types.BlobResourceContents) -> Content:
    if isinstance(resource, types.TextResourceContents):
        return Content(media_type=resource.mime_type or "text/plain", text=resource.text)
    kind = resource.mime_type or "application/octet-stream"
    return Content(media_type=kind, data=_bytes(resource.blob))


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as exc:
        raise ValueError("data that is not valid base64") from exc


def _unwrapped(data: Any) -> Any:
    if isinstance(data, dict) and data.keys() == {"result"}:
        return cast("dict[str, Any]", data)["result"]
    return cast("Any", data)


def _says(texts: Sequence[str], data: object) -> bool:
    """Whether *texts* are *data* as text: whole, or one text for each member of a list."""
    if len(texts) == 1 and _reads(texts[0], data):
        return True
    if not isinstance(data, list):
        return False
    members = cast("list[object]", data)
    return len(members) == len(texts) and all(map(_reads, texts, members))


def _reads(text: str, data: object) -> bool:
    if isinstance(data, str) and text == data:
        return True
    try:
        return bool(json.loads(text) == data)
    except (ValueError, RecursionError):
        return False


def _shown(part: Content) -> str:
    if part.text is not None:
        return part.text
    size = "" if part.data is None else f", {len(part.data)} bytes"
    return f"[{part.media_type}{size}]"
