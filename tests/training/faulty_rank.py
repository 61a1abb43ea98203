"""npbert's command line, in which one rank meets with an accident: for tests that mpirun starts.

    mpirun -n 2 python -m tests.training.faulty_rank FAULT RANK STEP pretrain ...

does what ``npbert pretrain ...`` does, until the rank gets to the step.
"""

import errno
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import npbert.training.loop
import npbert.training.saved_run
from npbert.cli import main
from npbert.training.launcher import find_launch


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail() -> None:
    raise MemoryError("Unable to allocate 1. TiB")


def fill_the_disk() -> None:
    def no_space(path: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    npbert.training.saved_run._flush_to_disk = no_space


def get_a_signal() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def wait() -> None:
    time.sleep(1)


FAULTS: dict[str, Callable[[], None]] = {
    "die": die,
    "fail": fail,
    "full-disk": fill_the_disk,
    "signal": get_a_signal,
    "wait": wait,
}


def plant(fault: Callable[[], None], step: int) -> None:
    """Let the fault happen in this step, counted from 1, with a batch a step."""
    run_batch, steps = npbert.training.loop.run_batch, 0

    def faulty_run_batch(*arguments: Any, **options: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == step:
            fault()
        return run_batch(*arguments, **options)

    npbert.training.loop.run_batch = faulty_run_batch


if __name__ == "__main__":
    name, rank, step, *command = sys.argv[1:]
    launch = find_launch()
    if launch is not None and launch.rank == int(rank):
        plant(FAULTS[name], int(step))
    sys.exit(main(command))
