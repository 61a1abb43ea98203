"""Whether a launcher, such as ``mpirun``, has started this process together with others.

It says so in the environment, which can be read without MPI: one process alone never needs it.
"""

import os
import time
from collections.abc import Mapping
from typing import Final, NamedTuple

# Of Open MPI, of MPICH and those that come from it (Intel MPI, MVAPICH), and of Slurm's srun.
VARIABLES: Final = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
)

# How long a rank with something to report leaves it to those before it. When one rank fails, launchers end
# the others within a fraction of a second.
PATIENCE_SECONDS: Final = 2.0
SECONDS_BETWEEN_RANKS: Final = 0.1


class Launch(NamedTuple):
    """One of several processes that were started together.

    Attributes
    ----------
    rank : int
        Of this process, from 0 on.
    size : int
        How many there are, at least 2.
    """

    rank: int
    size: int


def find_launch(environment: Mapping[str, str] = os.environ) -> Launch | None:
    """Return which of the processes that were started together this is; None if it was started alone.

    Parameters
    ----------
    environment : mapping of str to str

    Examples
    --------
    >>> find_launch({"PMI_RANK": "1", "PMI_SIZE": "4"})
    Launch(rank=1, size=4)
    >>> find_launch({"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1"})
    """
    for rank, size in VARIABLES:
        values = environment.get(rank, ""), environment.get(size, "")
        if all(value.isdecimal() for value in values) and int(values[1]) > 1:
            return Launch(int(values[0]), int(values[1]))
    return None


def seconds_to_wait(rank: int) -> float:
    """Return how long a rank waits before it reports an error that the ranks before it may have as well.

    Examples
    --------
    >>> seconds_to_wait(3)
    2.3
    """
    return PATIENCE_SECONDS + SECONDS_BETWEEN_RANKS * rank


def rank_0_reports_it() -> bool:
    """Return whether another process reports an error, after a while in which it can.

    For what is wrong with a start, such as an unknown option: all ranks meet it, before they can talk to each
    other. If another rank ended first, the launcher might end rank 0 before it has reported anything.
    """
    launch = find_launch()
    if launch is None or launch.rank == 0:
        return False
    time.sleep(seconds_to_wait(launch.rank))
    return True
