"""The tools that ``turnscope demo`` calls: three that work, two that cannot end in time, a sum.

Real tools on real files, at module level, so that they are found by name. Above: `_demo`. Below:
`turnscope`'s public names and `_files`. They know nothing of turns or of the terminal.
"""

from __future__ import annotations

import heapq
import os
import time
from typing import Final

import anyio
import attrs

from turnscope import check_cancelled, progress, tool

from . import _files

MOST_LISTED: Final = 200_000
"""How many files a listing counts before it stops and says so."""
MOST_COUNTED: Final = 6
"""How many files the demo reads."""
MOST_HASHED: Final = 4
"""How many of these it hashes too."""

_GENERATED: Final = frozenset({"__pycache__", "node_modules"})
_OFTEN: Final = 1_000  # files between two looks at the clock and at Ctrl-C


@attrs.frozen(kw_only=True)
class Listing:
    """What is in a folder, and below it."""

    files: int
    """Regular files."""
    bytes: int
    """Their size, all together."""
    left_out: int
    """Names that begin with a dot, or are of generated folders: left out, with all below them."""
    links: int
    """Symbolic links: not followed, so that a circle of them is no trap."""
    unreadable: int
    """Folders and files that could not be looked at."""
    complete: bool
    """Whether all was seen: a listing stops at 200,000 files."""
    largest: list[str]
    """The largest files of at most 16,000,000 bytes, the largest first."""


@attrs.frozen(kw_only=True)
class Count:
    """The size of a text."""

    lines: int
    words: int
    bytes: int
    path: str


@attrs.frozen(kw_only=True)
class Digest:
    """The hash of a file."""

    sha256: str
    path: str


@attrs.frozen(kw_only=True)
class Trouble:
    """A call that gave no value."""

    tool: str
    status: str


@attrs.frozen(kw_only=True)
class Summary:
    """What the second turn found out."""

    files: int
    lines: int
    words: int
    bytes: int
    longest: str
    """The file with the most lines; empty if there was none."""
    different: int
    """How many of the hashed files differ from each other."""
    troubles: dict[str, str]
    """The status of each tool that gave no value."""


@attrs.define
class _Walk:
    files: int = 0
    bytes: int = 0
    left_out: int = 0
    links: int = 0
    unreadable: int = 0
    sizes: list[tuple[int, str]] = attrs.field(factory=list[tuple[int, str]])
    """A heap of the largest so far, the smallest of them first."""

    def look(self, entry: os.DirEntry[str]) -> str | None:
        """Count *entry*; a folder that is to be looked into is returned."""
        if entry.name.startswith(".") or entry.name in _GENERATED:
            self.left_out += 1
        elif entry.is_symlink():
            self.links += 1
        elif entry.is_dir(follow_symlinks=False):
            return entry.path
        elif entry.is_file(follow_symlinks=False):
            size = entry.stat(follow_symlinks=False).st_size
            self.files += 1
            self.bytes += size
            if size <= _files.MOST_BYTES:
                keep = heapq.heappush if len(self.sizes) < MOST_COUNTED else heapq.heappushpop
                keep(self.sizes, (size, entry.path))
            if self.files % _OFTEN == 0:
                check_cancelled()
                progress(f"{self.files:,} files")
        return None


@tool(read_only=True, timeout=60)
def list_files(folder: str) -> Listing:
    """Count the files in a folder and below it, and name the largest.

    Args:
        folder: where to look; bytes that are no text are written %XX, and a percent sign %25
    """
    walk = _Walk()
    folders = [_files.real(folder)]
    while folders and walk.files < MOST_LISTED:
        check_cancelled()
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    try:
                        below = walk.look(entry)
                    except OSError:
                        walk.unreadable += 1
                    else:
                        if below is not None:
                            folders.append(below)
                    if walk.files >= MOST_LISTED:
                        break
        except OSError:
            walk.unreadable += 1
    return Listing(
        files=walk.files,
        bytes=walk.bytes,
        left_out=walk.left_out,
        links=walk.links,
        unreadable=walk.unreadable,
        complete=walk.files < MOST_LISTED,
        largest=[
            _files.shown(os.path.normpath(path)) for _, path in sorted(walk.sizes, reverse=True)
        ],
    )


@tool(read_only=True, timeout=20)
def count_words(path: str) -> Count:
    """Count the lines and words of a file, text or not, in a thread.

    Args:
        path: the file, written as list_files writes it
    """
    lines = words = size = 0
    inside = False  # whether the last chunk ended within a word
    for chunk in _files.chunks(path):
        check_cancelled()
        lines += chunk.count(b"\n")
        words += len(chunk.split()) - (inside and not chunk[:1].isspace())
        inside = not chunk[-1:].isspace()
        size += len(chunk)
        progress(f"{size / 1e6:.1f} MB")
    return Count(lines=lines, words=words, bytes=size, path=path)


sha256 = tool(backend="process", read_only=True, timeout=20)(_files.sha256)


@tool(timeout=1.0)
async def wait_for_answer(question: str) -> str:
    """Wait for somebody to answer; nobody does.

    Args:
        question: what to ask
    """
    await anyio.Event().wait()
    return question


@tool(timeout=0.5)
def never_looks_up(seconds: float) -> str:
    """Sleep in a thread without ever asking whether to go on: nobody can stop it.

    Args:
        seconds: how long
    """
    time.sleep(seconds)
    return f"slept for {seconds:g} s"


@tool
def sum_up(counts: list[Count], digests: list[Digest], troubles: list[Trouble]) -> Summary:
    """Add up what the tools have found.

    Args:
        counts: what count_words returned
        digests: what sha256 returned
        troubles: the calls that gave no value
    """
    longest = max(counts, key=lambda count: count.lines, default=None)
    return Summary(
        files=len(counts),
        lines=sum(count.lines for count in counts),
        words=sum(count.words for count in counts),
        bytes=sum(count.bytes for count in counts),
        longest="" if longest is None else longest.path,
        different=len({digest.sha256 for digest in digests}),
        troubles={trouble.tool: trouble.status for trouble in troubles},
    )


TOOLS: Final = (list_files, count_words, sha256, wait_for_answer, never_looks_up, sum_up)
