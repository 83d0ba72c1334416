"""A fresh interpreter that imports a module, and says how long it took and what came with it.

Run as a script: ``python imported.py STATEMENT [STATEMENT ...]``. The first imports, the others use
it for the first time, each in a span of its own. Nothing is imported before the clock starts but
what every interpreter has.
"""

import sys
from time import perf_counter


def measure(first: str, *then: str) -> dict[str, object]:
    """Run all: seconds, the modules that came with the first, those without bytecode on disk."""
    before = set(sys.modules)
    space: dict[str, object] = {}
    started = perf_counter()
    exec(first, space)
    seconds = perf_counter() - started
    came = {name: each for name, each in sys.modules.items() if name not in before}
    used: list[float] = []
    for each in then:
        started = perf_counter()
        exec(each, space)
        used.append(perf_counter() - started)
    import os

    cached = [getattr(getattr(each, "__spec__", None), "cached", None) for each in came.values()]
    missing = sum(path is not None and not os.path.exists(path) for path in cached)
    return {"seconds": seconds, "used": used, "modules": sorted(came), "uncompiled": missing}


if __name__ == "__main__":
    del sys.path[0]  # this folder, whose modules have common names
    result = measure(*sys.argv[1:])
    import json

    print(json.dumps(result))
