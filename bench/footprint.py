"""A fresh interpreter that imports a module, and says what that takes in memory and on disk.

Run as a script: ``python footprint.py STATEMENT``, an import. What is installed for it are the
distributions of the modules that it names, with all that they require, as their metadata has it.
"""

from __future__ import annotations

import os
import sys

sys.path[0] = os.path.dirname(sys.path[0])  # not this folder, whose modules have common names


def measure(statement: str) -> dict[str, object]:
    """Run *statement*, and measure; without metrics, and with the reason, where it cannot."""
    exec(statement, {})
    from bench import memory  # which imports nothing

    resident = memory.resident()
    from bench.installed import distributions_of, size_of, with_all_required

    try:
        installed = with_all_required(distributions_of(statement))
        metrics = {"distributions": float(len(installed)), "on disk": size_of(installed) / 1024}
    except LookupError as exc:
        return {"skipped": str(exc)}
    if resident is not None:
        metrics["resident"] = resident / 1024
    return {"metrics": metrics}


if __name__ == "__main__":
    result = measure(*sys.argv[1:])
    import json

    print(json.dumps(result))
