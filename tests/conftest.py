"""The matrix of event loops as fixtures, and how many examples a property gets.

* `anyio_backend`, for `@pytest.mark.anyio`: the test itself runs on asyncio, uvloop and trio.
* `any_loop`, for a sync test that calls `anyio.run(main, **any_loop)`: the same three, real time.
* `virtual_loop`, likewise, in virtual time: asyncio and trio. Property tests use this one.

`--loop asyncio|uvloop|trio` keeps the cells of one loop (and, with asyncio's, all tests that have
none), and may be given more than once; the others
are deselected, not skipped: a skip means that something could not be tested here, and says why.
"""

from __future__ import annotations

import os
import signal
from typing import Any

import hypothesis
import pytest
import trio._core._run

from tests.stalls import Watch
from tests.support import LOOPS, UVLOOP, VIRTUAL, Loop

# Trio starts the tasks of one tick in random order. Registered, that order is a part of the
# example: a failure comes back with its seed. There is no public name for it.
hypothesis.register_random(trio._core._run._r)

# A shell that starts this in the background has SIGINT ignored, here and in what is started from
# here, and then there is no Ctrl-C to test.
signal.signal(signal.SIGINT, signal.default_int_handler)

# No deadline: the machines that run this are shared. For the same reason slow generation is no
# failure. HYPOTHESIS_PROFILE chooses: `quick` while writing, `deep` before believing; `ci` draws
# the same examples each time, so that a change is only ever blamed for what it did, and `brief` the
# first few of them.
hypothesis.settings.register_profile(
    "default",
    deadline=None,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
_default = hypothesis.settings.get_profile("default")
hypothesis.settings.register_profile("ci", _default, derandomize=True, max_examples=50)
hypothesis.settings.register_profile("brief", _default, derandomize=True, max_examples=10)
hypothesis.settings.register_profile("quick", _default, max_examples=20)
hypothesis.settings.register_profile("deep", _default, max_examples=2_000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

# Hypothesis also draws constants of whichever local modules are loaded, which in a worker of xdist
# depends on the tests before: not for profiles that are to draw the same. It has no public switch.
if hypothesis.settings().derandomize:
    from hypothesis.internal.conjecture import providers

    if hasattr(providers, "_get_local_constants"):  # it came with 6.131
        providers._get_local_constants = lambda: providers._local_constants

FIXTURES = ("anyio_backend", "any_loop", "virtual_loop")


def cells(names: tuple[str, ...]) -> list[Any]:
    """One fixture parameter for each loop, with its name as its id."""
    return [UVLOOP if name == "uvloop" else pytest.param(name, id=name) for name in names]


@pytest.fixture(scope="module", params=cells(tuple(LOOPS)))
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """The event loop of each `@pytest.mark.anyio` test: asyncio, uvloop, trio."""
    return LOOPS[request.param]


# Of session scope, because hypothesis refuses fixtures that it would have to make anew for each
# example; `Loop` is frozen, and makes what must be new by itself.
@pytest.fixture(scope="session", params=cells(tuple(LOOPS)))
def any_loop(request: pytest.FixtureRequest) -> Loop:
    """Arguments for `anyio.run`: each event loop, in real time."""
    return Loop(request.param, virtual=False)


@pytest.fixture(scope="session", params=cells(VIRTUAL))
def virtual_loop(request: pytest.FixtureRequest) -> Loop:
    """Arguments for `anyio.run`: each event loop that has virtual time, with a fresh clock."""
    return Loop(request.param, virtual=True)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Watch(), "stalls")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--loop",
        action="append",
        choices=[*LOOPS],
        help="run the tests of this event loop, and with asyncio's those that need none; may be "
        "given more than once (default: all)",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chosen = set(config.getoption("--loop") or LOOPS)
    kept, dropped = [], []
    for item in items:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        loops = {parameters[fixture] for fixture in FIXTURES if fixture in parameters}
        (kept if (loops or {"asyncio"}) <= chosen else dropped).append(item)
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = kept
