"""What the environment says about the processes that were started together."""

import pytest

from npbert.training import launcher
from npbert.training.launcher import Launch, find_launch, rank_0_reports_it, seconds_to_wait


@pytest.mark.parametrize(("rank", "size"), launcher.VARIABLES)
def test_a_launch_is_found(rank, size):
    assert find_launch({rank: "0", size: "2"}) == Launch(0, 2)
    assert find_launch({rank: "11", size: "16"}) == Launch(11, 16)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1"},
        {"OMPI_COMM_WORLD_SIZE": "4"},
        {"PMI_RANK": "1"},
        {"PMI_RANK": "", "PMI_SIZE": "x"},
        {"SLURM_NTASKS": "4", "SLURM_PROCID": "0"},  # a batch script, not what its srun starts
    ],
)
def test_a_process_that_was_started_alone(environment):
    assert find_launch(environment) is None


def test_the_first_that_says_more_than_one_counts():
    """mpirun -n 3 in a job step of Slurm's with a single task."""
    step = {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}
    assert find_launch({**step, "PMI_RANK": "2", "PMI_SIZE": "3"}) == Launch(2, 3)


def test_rank_0_reports_what_all_ranks_meet(monkeypatch):
    waited = []
    monkeypatch.setattr(launcher.time, "sleep", waited.append)
    for launch in (None, Launch(0, 4), Launch(1, 4), Launch(3, 4)):
        monkeypatch.setattr(launcher, "find_launch", lambda launch=launch: launch)
        assert rank_0_reports_it() == bool(launch and launch.rank)
    assert waited == [seconds_to_wait(1), seconds_to_wait(3)]
    assert 1 < waited[0] < waited[1] < 5
