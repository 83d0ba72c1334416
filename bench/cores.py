"""How many CPUs this process has, and how to make do with fewer."""

from __future__ import annotations

import os


def cpus() -> int:
    """The CPUs that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows have no affinity to ask for
        return os.cpu_count() or 1


def narrow(cores: int) -> None:
    """Keep this process, and those that it starts, on *cores* CPUs, where the system lets us."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
