"""kill -9 at any moment, resume, and the parameters are those of the run that nobody disturbed."""

from tests.training.kill_and_resume import (
    command,
    different_parameters,
    different_records,
    run_killed,
    run_whole,
    temporary_files,
    write_inputs,
)

STEPS = 60


def test_killed_runs_end_with_the_same_bits(tmp_path):
    """Four kills; python -m tests.training.kill_and_resume does twenty."""
    write_inputs(tmp_path)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    seconds = run_whole(command(tmp_path, whole, STEPS))
    kills = run_killed(command(tmp_path, killed, STEPS), killed, STEPS, 4, seconds, seed=3)
    assert any(0 < kill.saved < STEPS for kill in kills)
    assert different_parameters(whole, killed) == []
    assert different_records(whole, killed) == []
    assert temporary_files(killed) == []


def test_a_bit_that_differs_is_found(tmp_path):
    write_inputs(tmp_path)
    for name, seed in (("one", 0), ("other", 1)):
        run_whole([*command(tmp_path, tmp_path / name, 1), "--seed", str(seed)])
    assert different_parameters(tmp_path / "one", tmp_path / "other")
    assert different_records(tmp_path / "one", tmp_path / "other")
