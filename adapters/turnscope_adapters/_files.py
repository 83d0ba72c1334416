"""Files and their names, for the tools of the demo. The standard library alone.

A worker process imports this file, and so not turnscope, before it hashes. A file's name may hold
bytes that are no text, line breaks, or what moves a terminal's cursor. Neither models nor terminals
take those, so `shown` writes them as ``%XX``, and `real` reads them back. Above: `_demo_tools`.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote_to_bytes

MOST_BYTES: Final = 16_000_000
"""Files of more bytes than this are neither read nor hashed."""

_CHUNK: Final = 1 << 20


def shown(path: str) -> str:
    """*path* as plain text that can be printed, and be sent as JSON; `real` undoes it."""
    return "".join(
        c if c.isprintable() and c != "%" else "".join(f"%{byte:02X}" for byte in os.fsencode(c))
        for c in path
    )


def real(path: str) -> str:
    """The path that the operating system knows, of one that was *shown*."""
    return os.fsdecode(unquote_to_bytes(path))


def chunks(path: str) -> Iterator[bytes]:
    """The content of the file at *path*, as `shown`, in pieces of at most 1 MiB.

    Raises OSError if it cannot be read; ValueError if it is no regular file, because a pipe or a
    device may never end, or if it has more than `MOST_BYTES`.
    """
    name = real(path)
    if not stat.S_ISREG(os.stat(name).st_mode):
        raise ValueError(f"{path} is not a regular file: choose another")
    left = MOST_BYTES
    with open(name, "rb") as file:
        while chunk := file.read(_CHUNK):
            left -= len(chunk)
            if left < 0:
                raise ValueError(f"{path} has more than {MOST_BYTES:,} bytes: choose another")
            yield chunk


def sha256(path: str) -> dict[str, str]:
    """Hash a file with SHA-256, in a process of its own.

    Args:
        path: the file, written as list_files writes it
    """
    digest = hashlib.sha256()
    for chunk in chunks(path):
        digest.update(chunk)
    return {"sha256": digest.hexdigest(), "path": path}
