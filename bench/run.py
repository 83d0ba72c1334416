"""The latency benchmark: ``python bench/run.py [--quick] [--scenario NAME ...] [--json FILE]``.

Every measurement has a process of its own, and every round has one of each contender, so that what
disturbs the machine disturbs them all. It ends with 0 whatever the figures are, and with 1 only if
a checker failed: a contender that did not do its work has no figures. With ``--peers`` it measures
other frameworks too, each in an environment of its own; what a checker finds there is no error.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:  # started as a script: only its own folder is there
    sys.path.insert(0, str(ROOT))

from bench import environments  # noqa: E402 -- because the path comes first
from bench.contenders import CONTENDERS, KNOWN, LOOPS, Contender  # noqa: E402 -- because, likewise
from bench.cores import cpus  # noqa: E402 -- because, likewise
from bench.plan import plan, plan_in_small  # noqa: E402 -- because, likewise
from bench.report import Failure, Sample, Skip, errors, report, summary  # noqa: E402 -- because, likewise
from bench.scenarios import EVERY, FOOTPRINT, IMPORT  # noqa: E402 -- because, likewise

ENVIRONMENTS: Final = ROOT / ".nox" / "turnscope" / "bench"
TIMEOUT: Final = 600
"""Seconds that one process may take."""
NAMES: Final = tuple(EVERY)
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
        if any(cell == (skip.contender, skip.scenario, skip.loop) for skip in self.skips):
            return
        # A peer that has failed has no figures there: its other rounds would tell nothing.
        if contender.peer and any(cell == each.cell for each in self.failures):
            return
        command = [self.python(contender), "-m", "bench.measure", contender.name, scenario, loop]
        self._keep(cell, round_, _run([*command, *more]))

    def footprint(self, contender: Contender, round_: int) -> None:
        """Measure what *contender* takes in memory and on disk, in a fresh process."""
        script = str(ROOT / "bench" / "footprint.py")
        came = _run([self.python(contender), script, contender.imports])
        self._keep((contender.name, FOOTPRINT.name, "none"), round_, came)

    def _keep(self, cell: tuple[str, str, str], round_: int, came: dict[str, Any]) -> None:
        if "metrics" in came:
            self.samples.append(Sample(*cell, round_, came["metrics"]))
        elif "skipped" in came:
            if not any(cell == (skip.contender, skip.scenario, skip.loop) for skip in self.skips):
                self.skips.append(Skip(*cell, came["skipped"]))
        else:
            self.failures.append(Failure(*cell, round_, came["failed"]))

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
        came = _run([self.python(contender), "-m", "bench.smoke", contender.name, loop, *scenarios])
        for name in scenarios:
            self._keep((contender.name, name, loop), 0, came.get(name, came))

    def known(self) -> None:
        """Note the modules of what turnscope is built on."""
        script = str(ROOT / "bench" / "imported.py")
        self.modules["known"] = _run([sys.executable, script, KNOWN]).get("modules", [])

    def imported(self, contender: Contender, round_: int) -> None:
        """Time one import, in a fresh process; round -1 compiles, and does not count."""
        cell = (contender.name, IMPORT.name, "none")
        script = str(ROOT / "bench" / "imported.py")
        came = _run([self.python(contender), script, contender.imports, contender.first])
        if "failed" in came:
            self.failures.append(Failure(*cell, round_, came["failed"]))
        elif round_ < 0:
            return
        elif came["uncompiled"]:
            sentence = f"{came['uncompiled']} modules have no bytecode on disk: is it read-only?"
            self.failures.append(Failure(*cell, round_, sentence))
        else:
            self.modules[contender.name] = came["modules"]
            metrics = {"import": came["seconds"] * 1e3, "modules": float(len(came["modules"]))}
            if contender.first:
                metrics["first tool after it"] = came["used"] * 1e3
            self.samples.append(Sample(*cell, round_, metrics))


def _run(command: list[str]) -> dict[str, Any]:
    environment = {name: value for name, value in os.environ.items() if name not in UNUSUAL}
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
    return _run([python, "-c", program, *names])


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


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="bench/run.py", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "--quick", action="store_true", help="about two minutes; shows little but that it runs"
    )
    parser.add_argument(
        "--smoke", action="store_true", help="in small, at once: does everything run, and right?"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write everything measured to FILE"
    )
    parser.add_argument(
        "--scenario", nargs="+", choices=NAMES, default=NAMES, metavar="NAME", help=", ".join(NAMES)
    )
    parser.add_argument(
        "--loop", nargs="+", choices=LOOPS, default=LOOPS, metavar="LOOP", help=", ".join(LOOPS)
    )
    known = [contender.name for contender in CONTENDERS]
    parser.add_argument(
        "--contender",
        nargs="+",
        choices=known,
        default=[contender.name for contender in CONTENDERS if not contender.peer],
        metavar="NAME",
        help=", ".join(known),
    )
    parser.add_argument(
        "--peers", action="store_true", help="other frameworks too: installs them when first asked"
    )
    parser.add_argument(
        "--environments",
        type=Path,
        default=ENVIRONMENTS,
        metavar="FOLDER",
        help="where those are installed, and found again",
    )
    parser.add_argument(
        "--rounds", type=int, metavar="N", help="fresh processes for each contender and loop"
    )
    parser.add_argument(
        "--python",
        nargs="+",
        default=[],
        metavar="NAME=PATH",
        help="the interpreter of a contender",
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Measure, print the tables; 1 if a checker failed, else 0."""
    asked = arguments(argv)
    bench = Bench(dict(each.split("=", 1) for each in asked.python))
    chosen = [
        contender
        for contender in CONTENDERS
        if (contender.name in asked.contender or (asked.peers and contender.peer))
        and (contender.name in bench.pythons or not contender.elsewhere)
    ]
    chosen = bench.settle(chosen, asked.environments)
    bench.skips += [
        Skip(each.name, name, "all", reason)
        for each in chosen
        for name, reason in each.lacks.items()
        if name in asked.scenario
    ]
    began = time.time()
    about: dict[str, Any] = {
        "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
        "quick": asked.quick,
        "machine": machine(),
        "contenders": {
            each.name: versions(
                bench.python(each), ("anyio", "trio", "uvloop", *each.distributions)
            )
            for each in chosen
        },
    }
    if asked.smoke:
        print("A smoke run: sizes are small and processes run at once, so no figure holds.\n")
        with ThreadPoolExecutor(cpus()) as pool:
            list(pool.map(lambda job: job(), plan_in_small(bench, asked, chosen)))
    else:
        for job in plan(bench, asked, chosen):
            job()
    about["seconds"] = round(time.time() - began, 1)
    about["load at the end"] = load()
    found = summary(bench.samples)
    print(report(about, found, bench.failures, bench.skips, bench.modules))
    if asked.json is not None:
        asked.json.write_text(json.dumps({**about, **record(bench, found)}, indent=1) + "\n")
    return 1 if errors(bench.failures) else 0


def record(bench: Bench, found: Any) -> dict[str, Any]:
    """All that was measured, for a file."""
    from dataclasses import asdict

    from bench.report import verdicts

    return {
        "verdicts": [asdict(verdict) for verdict in verdicts(found)],
        "failures": [asdict(failure) for failure in bench.failures],
        "skips": [asdict(skip) for skip in bench.skips],
        "modules": bench.modules,
        "samples": [asdict(sample) for sample in bench.samples],
    }


if __name__ == "__main__":
    sys.exit(main())
