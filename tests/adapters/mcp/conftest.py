"""The odd server, and the claim that no test of this folder leaves anything behind."""

from __future__ import annotations

import functools
import gc
import importlib.util
import inspect
import os
from collections.abc import Awaitable, Callable, Generator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.adapters.mcp.serving import Odd, left_of, open_connections
from turnscope.testing import nothing_left


def pytest_pycollect_makemodule() -> None:
    """Skip the whole folder without the official client, which its servers need as well."""
    if importlib.util.find_spec("mcp") is None:
        pytest.skip("mcp is not installed: pip install 'turnscope[mcp]'")


@pytest.fixture
def odd(tmp_path: Path) -> Odd:
    return Odd(tmp_path / "log")


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    """Look behind each async test: in its own task, because the runner's is one more."""
    if inspect.iscoroutinefunction(pyfuncitem.obj):
        pyfuncitem.obj = alone(pyfuncitem.obj)
    return (yield)


def alone(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """*test*, and then no task, thread or child, no process of the odd server's group, no file or
    connection that was not open before."""

    @functools.wraps(test)
    async def tested(**fixtures: Any) -> None:
        files = _files()
        async with nothing_left():
            await test(**fixtures)
        odd = fixtures.get("odd")
        if odd is not None and odd.log.exists():
            assert left_of(odd.pid) == []
        gc.collect()  # what was only forgotten warns here, and not in another test
        if "site" in fixtures:  # whose own side of each connection is in this process
            assert open_connections(fixtures["site"].port) == []
        else:
            assert _files() <= files

    return tested


def _files() -> int:
    """How many files are open; not the null device, which uvloop opens once, and keeps."""
    folder = "/proc/self/fd"
    if not os.path.isdir(folder):
        return psutil.Process(os.getpid()).num_fds()
    links = [os.path.realpath(f"{folder}/{number}") for number in os.listdir(folder)]
    return len([link for link in links if link != os.devnull])
