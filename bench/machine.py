"""Where it runs: the machine, its load, and the versions of what is measured.

Above: `run`. Below: the processes.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from . import processes
from .cores import cpus


def versions(python: str, names: tuple[str, ...]) -> dict[str, str | None]:
    """The versions of Python and of *names* in the environment of *python*; None: not installed."""
    program = """if True:
        import importlib.metadata, json, platform, sys
        came = {"python": platform.python_version()}
        for name in sys.argv[1:]:
            try:
                came[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                came[name] = None
        print(json.dumps(came))
    """
    return processes.run([python, "-c", program, *names])


def machine() -> dict[str, Any]:
    """What it runs on."""
    model = platform.processor()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        ...  # no Linux: what platform knows has to do
    return {"system": platform.platform(), "processor": model, "cpus": cpus(), "load": load()}


def load() -> float | None:
    """The load average of the last minute, where there is one."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
