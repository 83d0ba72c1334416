"""Whether the machine stood still while a test ran in real time: then its failure says nothing.

Such a test says "within 0.2 s" where it means "soon": on a shared machine a process is at times not
run for longer than that. A thread that only sleeps notices. A test that failed, and during which
it woke up much too late, is run again; one that failed undisturbed has failed. In virtual time
nothing waits for the machine, so there a failure always counts.
"""

from __future__ import annotations

import threading
import time
from typing import Final

import pytest

from tests.support import VIRTUAL

TICK: Final = 0.01
"""Seconds between two looks at the clock."""

TOO_LATE: Final = 0.05
"""Seconds by which the thread wakes up late on no machine that is only busy (three workers on two
cores: 0.02), and a quarter of the span that tests in real time count in."""

AGAIN: Final = 2
"""How often a test may be run again."""


class Watch:
    """A thread that sleeps, and the longest time by which it woke up late since the test began."""

    def __init__(self) -> None:
        self.worst = 0.0
        threading.Thread(target=self._watch, name="stalls", daemon=True).start()

    def _watch(self) -> None:
        before = time.monotonic()
        while True:
            time.sleep(TICK)
            now = time.monotonic()
            self.worst = max(self.worst, now - before - TICK)
            before = now

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        """Forget what was before the test, or before it is run again."""
        self.worst = 0.0

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Have tests in real time run again that fail while the machine stands still."""
        for item in items:
            if not in_virtual_time(item):
                item.add_marker(pytest.mark.flaky(reruns=AGAIN, condition=self.stood_still))

    def stood_still(self) -> bool:
        """Whether it did since the test began."""
        return self.worst > TOO_LATE


def in_virtual_time(item: pytest.Item) -> bool:
    """Whether the event loop of *item* has a clock of `turnscope.testing`."""
    if not isinstance(item, pytest.Function):
        return False
    parameters: dict[str, object] = item.callspec.params if hasattr(item, "callspec") else {}
    if "virtual_loop" in parameters:
        return True
    if item.path.parent.name in ("planted", "properties"):  # each makes its own, but for these
        real = "any_loop" in parameters or item.name.endswith("_in_real_time")
        loop = getattr(parameters.get("bug"), "loop", None)
        return not real and (loop is None or loop.virtual)
    # A module that has this fixture of its own has it for the sake of virtual time.
    return hasattr(item.module, "anyio_backend") and parameters.get("anyio_backend") in VIRTUAL
