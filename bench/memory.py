"""How much memory this process has in use, in bytes; None where the system does not tell.

It imports nothing, because `footprint` counts what is in memory.
"""


def resident() -> int | None:
    """What is in memory now."""
    return _status("VmRSS")


def peak() -> int | None:
    """The most that was ever in memory at once."""
    return _status("VmHWM")


def _status(name: str) -> int | None:
    try:
        with open("/proc/self/status") as lines:
            for line in lines:
                if line.startswith(f"{name}:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        ...  # no Linux
    return None
