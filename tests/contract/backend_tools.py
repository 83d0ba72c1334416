"""Functions for the contract of backends. At module level, so that a worker process finds them."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path


class Refused(Exception):
    """A failure of a tool's own, with more than text in it."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


def add(a: int, b: int = 2) -> int:
    return a + b


def shape(values: list[int], name: str) -> dict[str, object]:
    return {"name": name, "sum": sum(values), "half": sum(values) / 2, "none": None}


def refuse(what: str) -> None:
    raise Refused(what)


def leave() -> None:
    raise SystemExit(3)


def give_up() -> None:
    raise asyncio.CancelledError("nobody asked for this")


def own_timeout() -> None:
    raise TimeoutError("the other side is slow")


def unserialisable() -> object:
    return object


def meet(folder: str, me: str, others: int) -> str:
    """Come to a meeting and wait until all are there: it ends only if the calls overlap."""
    (Path(folder) / me).touch()
    give_up_at = time.monotonic() + 20
    while len(os.listdir(folder)) <= others:
        if time.monotonic() > give_up_at:
            return "nobody came"
        time.sleep(0.005)
    return me


def outlast(seconds: float, looking_up: bool = True, begun: str | None = None) -> str:
    """Work for *seconds* real seconds; end early if told to, where one can be told.

    *begun* is a file that is there from then on.
    """
    from turnscope import check_cancelled

    if begun is not None:
        Path(begun).touch()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if looking_up:
            check_cancelled()
        time.sleep(0.005)
    return "done"
