"""Several runs of the benchmark told as one: what a first run left open, more rounds can settle.

Pure. Above: `run`. Below: `record`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from .record import NoRecord, Record

OWN: Final = ("began", "command", "seconds", "load at the end")
"""What each run says of itself, whatever the others say."""
PARTS: Final = ("contenders", "titles", "scenarios")
"""What a run says of its contenders and scenarios, of which each run may have others."""


def joined(records: Sequence[Record]) -> Record:
    """Tell *records*, of which there is at least one, as one: its rounds are those of all.

    A scenario's rounds go on where those of the records before ended, so that a ratio is still
    taken between processes of one run. What the runs after the first say of themselves stands in
    ``about["more"]``. Raises NoRecord if they are not of one commit, machine, effort and base, or
    disagree over versions, titles or units.
    """
    first, *others = records
    if not others:
        return first
    about = first.about | {part: dict(first.about[part]) for part in PARTS}
    about["more"] = list(first.about.get("more", ()))
    whole = Record(about)
    _append(whole, first)
    for place, record in enumerate(others, start=2):
        _check_alike(about, record.about, place)
        for part in PARTS:
            about[part] |= record.about[part]
        told = {name: record.about[name] for name in OWN}
        told["load"] = record.about["machine"]["load"]
        about["more"] += [told, *record.about.get("more", ())]
        _append(whole, record)
    return whole


def _append(whole: Record, record: Record) -> None:
    """Add the rows of *record*, in rounds after those that are there."""
    past: defaultdict[str, int] = defaultdict(int)
    for row in (*whole.samples, *whole.failures):
        past[row.scenario] = max(past[row.scenario], row.round + 1)
    whole.samples += [replace(row, round=past[row.scenario] + row.round) for row in record.samples]
    whole.failures += [
        replace(row, round=past[row.scenario] + row.round) for row in record.failures
    ]
    known = {skip.cell for skip in whole.skips}
    whole.skips += [skip for skip in record.skips if skip.cell not in known]
    whole.modules = record.modules | whole.modules


def _check_alike(before: dict[str, Any], now: dict[str, Any], place: int) -> None:
    known = _says(before)
    for of, value in _says(now).items():
        if value != known.get(of, value):
            raise NoRecord(
                f"these runs cannot be told as one: {of} is {value!r} in file {place}, and "
                f"{known[of]!r} before it"
            )


def _says(about: dict[str, Any]) -> dict[str, object]:
    """What *about* says that another must not contradict."""
    machine = about["machine"]
    return {
        "the commit": about["commit"],
        "'quick'": about["quick"],
        "what it is compared with": about.get("compare"),
        **{f"the machine's {name}": machine[name] for name in ("system", "processor", "cpus")},
        **{f"{part[:-1]} {name!r}": each for part in PARTS for name, each in about[part].items()},
    }
