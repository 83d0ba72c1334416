"""Broken kernels that do not mend what a body leaves open; as in `bugs`, with the law for each.

Above: the test that tries them. Below: `bugs`, which keeps them, and the laws.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.properties.generate import plans
from tests.properties.test_l1_one_outcome import one_outcome
from tests.support import Loop
from turnscope import _left_open

from .bugs import planted

# The law gets no results to look at: the kernel itself breaks, with every turn in it.
LEAVING = {"leave": 3, "caller": ("nothing",)}
TRIO = Loop("trio", virtual=True)


@planted(one_outcome, plans(**LEAVING), seen_as=RuntimeError)
def a_scope_that_is_left_open_stays_open_on_asyncio(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_left_open._OnAsyncio, "inside", lambda self, scope: ())


@planted(one_outcome, plans(**LEAVING), loop=TRIO, seen_as=ExceptionGroup)
def a_scope_that_is_left_open_stays_open_on_trio(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_left_open._OnTrio, "inside", lambda self, scope: ())


@planted(one_outcome, plans(**LEAVING), seen_as=RuntimeError)
def only_the_innermost_of_them_is_closed(patch: pytest.MonkeyPatch) -> None:
    closed = _left_open._OnAsyncio.close

    def close(self: Any, found: Any) -> None:
        closed(self, found[:1])

    patch.setattr(_left_open._OnAsyncio, "close", close)
