"""Who is measured: names and facts alone, so that the runner imports no contender.

``python bench/run.py --python NAME=/path/to/python`` runs a contender in an environment of its own,
which needs anyio and what the driver imports.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

LOOPS: Final = ("asyncio", "uvloop", "trio")
ASYNCIO: Final = ("asyncio", "uvloop")
EVERY: Final = ("noop", "cancel", "threads", "cpu", "run", "streamed", "agents", "import")


@dataclass(frozen=True, slots=True)
class Contender:
    """One driver: ``bench/drivers/NAME.py``."""

    name: str
    title: str
    imports: str
    """The statement whose time is the import time."""
    distributions: tuple[str, ...]
    """Whose versions are recorded, beside Python's and anyio's."""
    first: str = ""
    """A first use after it, which may load what the import put off; timed apart."""
    loops: tuple[str, ...] = LOOPS
    scenarios: tuple[str, ...] = EVERY
    elsewhere: bool = False
    """Whether it is measured only if ``--python`` says where it is installed."""


CONTENDERS: Final = (
    Contender("gather", "bare gather", "import asyncio", (), loops=ASYNCIO),
    Contender("anyio_group", "bare AnyIO task group", "import anyio", ()),
    Contender(
        "turnscope_kernel",
        "turnscope",
        "import turnscope",
        ("turnscope", "attrs", "pydantic"),
        first="@turnscope.tool\nasync def noop(n: int) -> int: return n",
    ),
    Contender(
        "turnscope_observed",
        "turnscope, observed",
        "import turnscope",
        ("turnscope", "attrs", "pydantic"),
        scenarios=("noop", "run", "agents"),
    ),
    Contender(
        "turnscope_before",
        "turnscope, before",
        "import turnscope",
        ("turnscope", "attrs", "pydantic"),
        elsewhere=True,
    ),
)

FLOOR: Final = "anyio_group"
OURS: Final = "turnscope_kernel"
BEFORE: Final = "turnscope_before"
KNOWN: Final = "import anyio, anyio.lowlevel, attrs, typing_extensions"
"""What turnscope is built on: the modules that come with these need no explaining."""
