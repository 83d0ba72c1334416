"""What the runner is asked to make of a run, and does: tables, a file, pictures, an exit code.

Above: `run`, which measures. Below: `record`, `report`, `against` and `plots`.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from . import against, base, compare
from .contenders import Contender
from .panels import headline
from .record import Record, write
from .report import report
from .samples import errors, summary
from .scenarios import EVERY, SMALL


def add_options(parser: ArgumentParser) -> None:
    """Let *parser* take what is to be made of a run."""
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write everything measured to FILE"
    )
    parser.add_argument(
        "--plots", type=Path, metavar="FOLDER", help="draw what was measured, as SVG and PNG"
    )
    parser.add_argument(
        "--from",
        dest="source",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="measure nothing: tell anew what --json wrote to FILE; several are told as one run",
    )
    parser.add_argument(
        "--compare",
        metavar="BASE",
        help="measure against another commit; 1 if something has become slower",
    )
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="PERCENT",
        help=f"by how much it must be slower at least; {compare.THRESHOLD:.0%}".rstrip("%")
        + " by default",
    )


def check(parser: ArgumentParser, asked: Namespace) -> None:
    """Refuse, before anything is measured, what could not be done after it."""
    if asked.json is not None and not asked.json.absolute().parent.is_dir():
        parser.error(f"--json: there is no folder {asked.json.parent}")
    if asked.plots is not None and asked.plots.exists() and not asked.plots.is_dir():
        parser.error(f"--plots: {asked.plots} is not a folder")
    if asked.plots is not None and find_spec("matplotlib") is None:
        parser.error("--plots needs matplotlib: nox -s bench has it, or pip install matplotlib")
    if asked.compare is None:
        if asked.threshold is not None and asked.source is None:
            parser.error("--threshold is for --compare")
        return
    if asked.source is not None:
        parser.error("--compare measures and --from does not: a file tells what it was against")
    if asked.threshold is not None and not asked.threshold >= 0:
        parser.error(f"--threshold: {asked.threshold:g} is below 0")
    least = compare.least_rounds(comparisons(asked))
    if asked.rounds is not None and asked.rounds < least:
        parser.error(f"--compare: {asked.rounds} rounds can show nothing; take {least} or more")


def comparisons(asked: Namespace) -> int:
    """How many metrics on how many event loops ``--compare`` will look at, at the most."""
    found = 0
    for name in asked.scenario:
        scenario = EVERY[name]
        if scenario.quick is None:
            continue
        loops = getattr(scenario, "loops", None)  # none: it is no work of an event loop
        times = 1 if loops is None else sum(loop in loops for loop in asked.loop)
        found += times * len(scenario.units)
    return found


def install(revision: str) -> tuple[str, str]:
    """Make the commit that *revision* names ready: its full name, and its interpreter."""
    commit = base.commit_of(revision)
    print(f"installing {revision}, {commit[:12]} ...", file=sys.stderr, flush=True)
    python = base.python_of(commit)
    base.check_apart(python)
    return commit, str(python)


def about(
    asked: Namespace, argv: list[str], chosen: list[Contender], commit: str | None
) -> dict[str, Any]:
    """What a record says of itself: what was typed, of what, and in which words it is told."""
    scenarios = EVERY | SMALL if asked.smoke else EVERY
    told: dict[str, Any] = {
        "command": ["python", "bench/run.py", *argv],
        "commit": base.here(),
        "quick": asked.quick or asked.smoke,
        "titles": {each.name: each.title for each in chosen},
        "scenarios": {
            each.name: {
                "title": each.title,
                "units": dict(each.units),
                "headline": headline(each.name, each.units),
            }
            for each in scenarios.values()
            if each.name in asked.scenario
        },
    }
    if commit is not None:
        percent = asked.threshold
        threshold = compare.THRESHOLD if percent is None else percent / 100
        told["compare"] = {"base": commit, "threshold": threshold}
    return told


def tell(record: Record, asked: Namespace) -> int:
    """Print the tables, write what else was asked for, and judge: 1 if something failed, else 0."""
    if asked.source is not None and asked.threshold is not None and "compare" in record.about:
        record.about["compare"]["threshold"] = asked.threshold / 100
    found = summary(record.samples, record.failures, record.skips)
    print(report(record.about, found, record.failures, record.skips, record.modules))
    if asked.json is not None:
        write(record, asked.json)
    if asked.plots is not None:
        from .plots import draw  # here, because nothing else needs matplotlib

        for path in draw(record, asked.plots):
            print(path, file=sys.stderr)
    worse = False
    if "compare" in record.about:
        made = against.changes(found, record.about)
        # Where nothing was compared, nothing has passed.
        worse = bool(compare.regressions(made)) or not made
    return 1 if errors(record.failures) or worse else 0


def refuse(reason: Exception) -> int:
    """Say why there is nothing to tell: the exit code of bad usage."""
    print(f"bench/run.py: {reason}", file=sys.stderr)
    return 2
