"""A blocking tool in a thread that looks up: it ends in time when its turn does."""

from __future__ import annotations

import hashlib
from pathlib import Path

import anyio

from turnscope import Kernel, ToolCall, check_cancelled, progress, tool


@tool(timeout=30)
def checksum(path: Path) -> str:
    """Compute the SHA-256 of a file, however large."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            check_cancelled()  # the one thing that a thread must do to be stoppable
            digest.update(block)
            progress(file.tell())
    return digest.hexdigest()


async def main(path: str) -> str:
    async with Kernel() as kernel, kernel.turn([checksum]) as turn:
        turn.submit(ToolCall("c1", "checksum", {"path": path}))
    return str(turn.results[0].content)


if __name__ == "__main__":
    print(anyio.run(main, __file__))
