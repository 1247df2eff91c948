"""Trains in child processes that are killed at random moments, and goes on until the run is done.

python interrupted.py DATA RUN SEED KILLS CONFIG: prints how many processes were killed. Children are forked, so that
what takes seconds to import is imported once.
"""

import multiprocessing
import os
import random
import signal
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from fasterrcnn.training.fit import fit
from fasterrcnn.training.prepare import SETTINGS_FILE

STEPS = 48
"""Of the whole run: 12 epochs of 7 images, two a step."""


def train(data: str, run: str, config: str) -> None:
    if (Path(run) / SETTINGS_FILE).exists():
        fit(resume=run)
    else:
        fit(data, output=run, config=config)


def steps_done(run: str) -> int:
    return max((int(path.stem) for path in Path(run).glob("state/[!.]*.state")), default=0)


def main() -> None:
    data, run, seed, kills, config = sys.argv[1:]
    chance, killed = random.Random(int(seed)), 0
    fork = multiprocessing.get_context("fork")
    while True:
        child = fork.Process(target=train, args=(data, run, config))
        child.start()
        assert child.pid is not None
        if killed < int(kills):
            while child.is_alive() and not (Path(run) / SETTINGS_FILE).exists():
                time.sleep(0.01)  # before, there is nothing to go on with
            # At a random moment, but early enough for all that are to come: fast machines are soon done.
            moment, most = time.monotonic() + chance.uniform(0, 1.2), STEPS * (killed + 1) / (int(kills) + 1)
            while child.is_alive() and time.monotonic() < moment and steps_done(run) < most:
                time.sleep(0.002)
            if child.is_alive():
                os.kill(child.pid, signal.SIGKILL)
                killed += 1
        child.join()
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL, child.exitcode
    sys.stdout.write(str(killed))


if __name__ == "__main__":
    main()
