"""The process of a smoke run: one contender, one event loop, and many scenarios in small.

Started by `run`, as ``python -m bench.smoke DRIVER LOOP SCENARIO ...``; JSON on standard output. A
process for each scenario would take longer than all that they do. A worker process imports this
file as its main script: so nothing happens at its import.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def main(driver: str, loop: str, *scenarios: str) -> dict[str, dict[str, Any]]:
    """Run all *scenarios*: their metrics, or the reason why there are none, by their names."""
    from bench.measure import measured
    from bench.scenarios import SMALL
    from bench.turns import SMOKE

    return {each: measured(driver, SMALL[each], loop, SMOKE) for each in scenarios}


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
