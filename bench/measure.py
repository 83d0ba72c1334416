"""The process under test: one contender, one scenario, one event loop; JSON on standard output.

Started by `run`, as ``python -m bench.measure DRIVER SCENARIO LOOP ROUNDS SECONDS``. A worker
process imports this file as its main script: so nothing happens at its import.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from bench.turns import Effort, Scenario

OPTIONS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "asyncio": ("asyncio", {}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}
"""What each event loop is to AnyIO."""


def main(driver: str, scenario: str, loop: str, rounds: str, seconds: str) -> dict[str, Any]:
    """Measure, and say what came of it: metrics, or the reason why there are none."""
    from bench.scenarios import SCENARIOS
    from bench.turns import Effort

    return measured(driver, SCENARIOS[scenario], loop, Effort(int(rounds), float(seconds)))


def measured(driver: str, chosen: Scenario, loop: str, effort: Effort) -> dict[str, Any]:
    """As `main`, for a scenario of any size."""
    import anyio

    from bench.checks import CheckFailed, Unseen
    from bench.cores import narrow
    from bench.scenarios import run

    if chosen.cores is not None:
        narrow(chosen.cores)
    try:
        module: Any = importlib.import_module(f"bench.drivers.{driver}")
        if loop != "asyncio":
            importlib.import_module(loop)
    except ImportError as exc:
        return {"skipped": f"{exc}"}
    backend, options = OPTIONS[loop]
    try:
        metrics = anyio.run(run, chosen, module, effort, backend=backend, backend_options=options)
        check_no_children()
    except CheckFailed as exc:
        return {"failed": str(exc)}
    except Unseen as exc:
        return {"skipped": str(exc)}
    return {"metrics": metrics}


def check_no_children(within: float = 5.0) -> None:
    """No process that was started here is alive after the event loop, where ``/proc`` tells.

    Raises CheckFailed after *within* seconds.
    """
    from bench.checks import CheckFailed

    end = time.monotonic() + within
    while children := _children():
        if time.monotonic() > end:
            raise CheckFailed(f"{len(children)} child processes are alive after the event loop")
        time.sleep(0.01)


def _children() -> list[str]:
    # By each process's own word of its parent: a list of the children of one thread goes away with
    # that thread, and worker threads end while they are looked at.
    alive = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # Behind the name, which may hold anything: the state (Z: it has ended), the parent.
            state, parent = path.read_text(errors="replace").rpartition(")")[2].split()[:2]
        except OSError:
            continue  # it has ended since
        if int(parent) == os.getpid() and state not in "ZX":
            alive.append(path.parent.name)
    return alive


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
