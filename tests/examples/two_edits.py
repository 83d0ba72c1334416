"""Two edits of one file in one turn, neither lost; edits of different files overlap.

``writes="file/{path}"`` is all that it takes: the kernel lets calls that write one file, by whatever
name, run in the order in which the model asked for them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import anyio

from turnscope import Kernel, ToolCall, ToolResult, tool


@tool(writes="file/{path}", timeout=30)
async def replace(path: Path, old: str, new: str) -> str:
    """Replace a text in a file."""
    file = anyio.Path(path)
    text = await file.read_text()
    if old not in text:
        raise ValueError(f"{old!r} is not in {path.name}")
    await anyio.sleep(0.05)  # another edit that came now would be lost, or undo this one
    await file.write_text(text.replace(old, new))
    return f"{path.name} is changed"


async def main(calls: Sequence[ToolCall]) -> tuple[ToolResult, ...]:
    async with Kernel() as kernel, kernel.turn([replace]) as turn:
        for call in calls:
            turn.submit(call)
    return turn.results


def edit(id: str, path: Path, old: str, new: str) -> ToolCall:
    return ToolCall(id, "replace", {"path": str(path), "old": old, "new": new})


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        poem = Path(folder) / "poem.txt"
        poem.write_text("roses are red, violets are red")
        anyio.run(
            main,
            [
                edit("c1", poem, "violets are red", "violets are blue"),
                edit("c2", Path(folder) / "." / "poem.txt", "roses", "tulips"),
            ],
        )
        print(poem.read_text())
