"""The processes that are measured: one for each measurement, and what came of them.

Above: `run`, which asks for them in the order of `plan`. Below: environments and samples.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from . import environments
from .contenders import BEFORE, KNOWN, Contender
from .samples import Failure, Sample, Skip
from .scenarios import FOOTPRINT, IMPORT

ROOT: Final = Path(__file__).resolve().parent.parent
TIMEOUT: Final = 600
"""Seconds that one process may take."""
# What would make this Python slower than a user's, or leave it without bytecode.
UNUSUAL: Final = frozenset(
    {
        "PYTHONASYNCIODEBUG",
        "PYTHONDEVMODE",
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONMALLOC",
        "PYTHONPROFILEIMPORTTIME",
        "PYTHONTRACEMALLOC",
        "PYTHONWARNINGS",
    }
)


@dataclass(slots=True)
class Bench:
    """One run of the benchmark: what was asked for, and what has come of it."""

    pythons: dict[str, str]
    comparing: bool = False
    """Whether a cell that the other commit lacks is of no use."""
    samples: list[Sample] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)
    modules: dict[str, list[str]] = field(default_factory=dict)
    """What came with the import of each contender."""

    def python(self, contender: Contender) -> str:
        """The interpreter of *contender*."""
        return self.pythons.get(contender.name, sys.executable)

    def measure(
        self, contender: Contender, scenario: str, loop: str, round_: int, *more: str
    ) -> None:
        """Measure once, in a fresh process."""
        cell = (contender.name, scenario, loop)
        whose = {contender.name, BEFORE} if self.comparing else {contender.name}
        if any(skip.contender in whose and skip.cell[1:] == cell[1:] for skip in self.skips):
            return
        # A peer that has failed has no figures there: its other rounds would tell nothing.
        if contender.peer and any(cell == each.cell for each in self.failures):
            return
        command = [self.python(contender), "-m", "bench.measure", contender.name, scenario, loop]
        self._keep(cell, round_, run([*command, *more]))

    def footprint(self, contender: Contender, round_: int) -> None:
        """Measure what *contender* takes in memory and on disk, in a fresh process."""
        script = str(ROOT / "bench" / "footprint.py")
        came = run([self.python(contender), script, contender.everything])
        self._keep((contender.name, FOOTPRINT.name, "none"), round_, came)

    def _keep(self, cell: tuple[str, str, str], round_: int, came: dict[str, Any]) -> None:
        if "metrics" in came:
            self.samples.append(Sample(*cell, round_, came["metrics"]))
        elif "skipped" in came:
            self._skip(cell, came["skipped"])
        elif cell[0] == BEFORE:  # what an older commit cannot do is no failure of this one
            self._skip(cell, came["failed"])
        else:
            self.failures.append(Failure(*cell, round_, came["failed"]))

    def _skip(self, cell: tuple[str, str, str], reason: str) -> None:
        if all(skip.cell != cell for skip in self.skips):
            self.skips.append(Skip(*cell, reason))

    def settle(self, contenders: Iterable[Contender], cache: Path) -> list[Contender]:
        """Find an interpreter for each; who has none is not measured, and the rest are given."""
        settled = []
        for contender in contenders:
            if contender.requirements and contender.name not in self.pythons:
                print(f"the environment of {contender.name} ...", file=sys.stderr, flush=True)
                try:
                    self.pythons[contender.name] = environments.interpreter(
                        contender.name, contender.requirements, cache
                    )
                except environments.NotMade as exc:
                    self.skips.append(Skip(contender.name, "all", "all", str(exc)))
                    continue
            settled.append(contender)
        return settled

    def smoke(self, contender: Contender, loop: str, scenarios: Sequence[str]) -> None:
        """See whether *contender* gets through *scenarios* in small, in one process for all."""
        came = run([self.python(contender), "-m", "bench.smoke", contender.name, loop, *scenarios])
        for name in scenarios:
            self._keep((contender.name, name, loop), 0, came.get(name, came))

    def known(self) -> None:
        """Note the modules of what turnscope is built on."""
        script = str(ROOT / "bench" / "imported.py")
        self.modules["known"] = run([sys.executable, script, KNOWN]).get("modules", [])

    def imported(self, contender: Contender, round_: int) -> None:
        """Time one import, in a fresh process; round -1 compiles, and does not count."""
        cell = (contender.name, IMPORT.name, "none")
        script = str(ROOT / "bench" / "imported.py")
        later = {"agents": contender.agents, "first tool": contender.first}
        then = {name: statement for name, statement in later.items() if statement}
        came = run([self.python(contender), script, contender.imports, *then.values()])
        if "failed" in came:
            self._keep(cell, round_, came)
        elif round_ < 0:
            return
        elif came["uncompiled"]:
            sentence = f"{came['uncompiled']} modules have no bytecode on disk: is it read-only?"
            self._keep(cell, round_, {"failed": sentence})
        else:
            self.modules[contender.name] = came["modules"]
            metrics = {"import": came["seconds"] * 1e3, "modules": float(len(came["modules"]))}
            used = dict(zip(then, came["used"], strict=True))
            metrics["with agents"] = (came["seconds"] + used.get("agents", 0)) * 1e3
            if contender.first:
                metrics["first tool after it"] = used["first tool"] * 1e3
            self._keep(cell, round_, {"metrics": metrics})


def run(command: list[str]) -> dict[str, Any]:
    """Run *command* in the checkout: what its last line says as JSON, or why it failed."""
    # What lies on this interpreter's path would hide what another one has installed.
    unwanted = UNUSUAL if command[0] == sys.executable else UNUSUAL | {"PYTHONPATH"}
    environment = {name: value for name, value in os.environ.items() if name not in unwanted}
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIMEOUT
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"no end within {TIMEOUT} s"}
    if done.returncode:
        words = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return {"failed": words[-1], "stderr": done.stderr}
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result
