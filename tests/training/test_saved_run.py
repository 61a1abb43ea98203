"""Checkpoints: whole or not there at all, whatever happens while they are written."""

import json
import subprocess
import sys

import numpy as np
import pytest

import npbert
from npbert.training.optimizers import OPTIMIZERS
from npbert.training.saved_run import Progress, SavedRun, first_difference, write_directory
from tests.training.small import small_bert, small_run, write_corpus


@pytest.fixture
def run(tmp_path):
    return SavedRun(tmp_path / "run", {"seed": 0})


def adam(bert):
    """An optimiser that has taken a step, so that its state is not all zeros."""
    optimizer = OPTIMIZERS["adamw"](bert.params)
    rng = np.random.default_rng(1)
    grads = {name: rng.normal(size=value.shape).astype(value.dtype) for name, value in bert.params.items()}
    optimizer.step(grads, 1e-3)
    return optimizer


def names_in(directory):
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_restored_is_what_was_saved(run, dtype):
    bert = small_bert(dtype=dtype)
    optimizer = adam(bert)
    progress = Progress(
        7, {"epoch": 1, "block": 2}, 1.25, 6, 1, {"steps": 3, "tallies": {"labels": [1, 2.5, 0]}}
    )
    run.save(bert, optimizer, progress)

    other, fresh = small_bert(seed=5, dtype=dtype), None
    fresh = OPTIMIZERS["adamw"](other.params)
    assert run.restore(other, fresh) == progress
    assert fresh.steps == optimizer.steps == 1
    for name, value in bert.params.items():
        np.testing.assert_array_equal(other.params[name], value)
        assert other.params[name].dtype == dtype
    state = fresh.state()
    for name, value in optimizer.state().items():
        assert value.any()
        np.testing.assert_array_equal(state[name], value)


def test_the_newest_is_kept_and_the_older_goes(run):
    bert = small_bert()
    optimizer = adam(bert)
    for step in (9, 10, 100):
        run.save(bert, optimizer, Progress(step))
        assert names_in(run.directory) == [f"checkpoint-{step:08d}"]
    assert run.restore(bert, optimizer).step == 100


def test_more_steps_than_digits_are_still_the_newest(run):
    for step in (99_999_999, 100_000_000):
        (run.directory / f"checkpoint-{step:08d}").mkdir(parents=True)
    assert run.checkpoints()[-1].name == "checkpoint-100000000"


def test_what_is_half_written_is_no_checkpoint_and_is_tidied_up(run):
    bert = small_bert()
    run.save(bert, adam(bert), Progress(3))
    (run.directory / ".checkpoint-00000006.tmp").mkdir()
    (run.directory / ".checkpoint-00000006.tmp" / "model.safetensors").write_bytes(b"half")
    (run.directory / ".metrics.jsonl.tmp").write_bytes(b"half")
    (run.directory / ".tmpAb12Cd").write_bytes(b"half")  # as the package safetensors names them
    run.best.mkdir()
    (run.best / ".model.safetensors.new.12ab34cd.tmp").write_bytes(b"half")
    (run.directory / ".gitignore").write_text("*\n")  # somebody else's
    assert [path.name for path in run.checkpoints()] == ["checkpoint-00000003"]
    run.tidy_up()
    assert names_in(run.directory) == [".gitignore", "best", "checkpoint-00000003"]
    assert names_in(run.best) == []


def test_two_checkpoints_after_a_kill_between_writing_and_removing(run):
    """The newer one is whole, or it would not have its name."""
    bert = small_bert()
    optimizer = adam(bert)
    run.save(bert, optimizer, Progress(3))
    (run.directory / "checkpoint-00000003").rename(run.directory / "aside")
    run.save(bert, optimizer, Progress(6))
    (run.directory / "aside").rename(run.directory / "checkpoint-00000003")
    assert run.restore(bert, optimizer).step == 6
    run.tidy_up()
    assert names_in(run.directory) == ["checkpoint-00000006"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("after", ["optimizer", "model"])
def test_what_fails_leaves_the_checkpoint_before(run, monkeypatch, error, after):
    bert = small_bert()
    optimizer = adam(bert)
    run.save(bert, optimizer, Progress(3))

    def fail(*_arguments, **_options):
        raise error

    if after == "model":
        monkeypatch.setattr("npbert.training.saved_run.save_safetensors", fail)
    else:
        monkeypatch.setattr("npbert.checkpoint.huggingface.save_safetensors", fail)
    with pytest.raises(type(error)):
        run.save(bert, optimizer, Progress(6))
    assert names_in(run.directory) == ["checkpoint-00000003"]
    assert run.restore(bert, optimizer).step == 3


FULL_DISK = """
import resource, sys
from pathlib import Path
from tests.training.small import small_run
# The parameters fit, the moments, which are twice as large, do not.
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
try:
    small_run(Path(sys.argv[1]), Path(sys.argv[2]), resume=True)
except OSError as error:
    print(error)
"""


def test_a_disk_that_is_full_for_real(tmp_path):
    """The operating system refuses to make a file larger; the run can be resumed when there is room."""
    corpus = write_corpus(tmp_path / "corpus.txt")
    expected, _ = small_run(tmp_path / "whole", corpus)
    small_run(tmp_path / "run", corpus, steps=12, report=stop_at_4)
    words = [sys.executable, "-c", FULL_DISK, str(tmp_path / "run"), str(corpus)]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert "optimizer.safetensors" in said and "File too large" in said
    assert names_in(tmp_path / "run") == ["checkpoint-00000004", "metrics.jsonl"]
    resumed, _ = small_run(tmp_path / "run", corpus, bert=small_bert(seed=3), resume=True)
    for name, value in expected.params.items():
        np.testing.assert_array_equal(resumed.params[name], value, err_msg=name)


def stop_at_4(record):
    import os
    import signal

    if record["step"] == 4:
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("training.json", lambda data: data[:20], "line 2"),
        ("training.json", lambda data: b"{}", "not what npbert writes there"),
        ("training.json", lambda data: data.replace(b'"step"', b'"steps"'), "not what npbert writes there"),
        ("model.safetensors", lambda data: data[:-8], "not a whole safetensors file"),
        ("optimizer.safetensors", lambda data: data[:100], "not a whole safetensors file"),
    ],
)
def test_a_damaged_checkpoint_is_named(run, name, damage, message):
    bert = small_bert()
    optimizer = adam(bert)
    path = run.save(bert, optimizer, Progress(3)) / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=message) as caught:
        run.restore(bert, optimizer)
    assert name in str(caught.value)


def test_a_missing_checkpoint_is_named(run):
    bert = small_bert()
    with pytest.raises(FileNotFoundError, match="no checkpoint to resume from"):
        run.restore(bert, adam(bert))


@pytest.mark.parametrize(
    ("saved", "now", "message"),
    [
        ({"a": 1}, {"a": 1}, ""),
        ({"a": {"b": [1, 2]}}, {"a": {"b": [1, 3]}}, "a.b is [1, 2] there, and [1, 3] now"),
        ({"a": 1}, {}, "a is 1 there, and null now"),
        ({}, {"a": "x"}, 'a is null there, and "x" now'),
        ({"a": {"b": 1}}, {"a": 2}, 'a is {"b": 1} there, and 2 now'),
    ],
)
def test_the_first_difference_is_named(saved, now, message):
    assert first_difference(saved, now) == message


def test_a_checkpoint_of_another_shape_is_refused_before_anything_changes(run):
    bert = small_bert(hidden_size=16)
    run.save(bert, adam(bert), Progress(3))
    other = small_bert(hidden_size=24)
    before = {name: value.copy() for name, value in other.params.items()}
    same_recipe = SavedRun(run.directory, {"seed": 0})
    with pytest.raises(ValueError, match="shape"):
        same_recipe.restore(other, OPTIMIZERS["adamw"](other.params))
    for name, value in other.params.items():
        np.testing.assert_array_equal(value, before[name])


def test_a_checkpoint_is_a_model(run):
    bert = small_bert()
    path = run.save(bert, adam(bert), Progress(3))
    loaded = npbert.load(path)
    assert loaded.tokenizer is not None
    assert json.loads((path / "training.json").read_text())["recipe"] == {"seed": 0}


def test_a_directory_appears_as_a_whole(tmp_path):
    seen = []

    def write(directory):
        (directory / "a").write_text("1")
        seen.append((tmp_path / "final").exists())

    write_directory(tmp_path / "final", write)
    assert seen == [False]
    assert names_in(tmp_path) == ["final"]
