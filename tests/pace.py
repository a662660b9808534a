"""How long something may take on a machine that does other things, too."""

import os


def within(seconds: float) -> float:
    """Return a bound for what takes `seconds` at most while nobody else wants the processors.

    It grows with the number of processes that wait for each of them, as time does.
    """
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
