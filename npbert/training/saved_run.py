"""A training run on disk: its checkpoints, which are all that is needed to go on bit for bit.

::

    OUT/config.json, model.safetensors, vocab.txt    the trained model, when the run has ended
    OUT/checkpoint-00000300/                         the last good state
        config.json, model.safetensors, vocab.txt    the model, for `npbert.load`
        optimizer.safetensors                        the optimiser's moments
        training.json                                step, position in the data, what the run was started with
    OUT/metrics.jsonl                                what was measured, a line a record

A checkpoint is written under a hidden name beside the others and renamed when all of it is on the disk; only
then is the one before removed. So at any moment, whatever ends the process, the newest checkpoint is whole.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from npbert.bert import Bert
from npbert.checkpoint.huggingface import (
    CONFIG_NAME,
    read_checkpoint,
    read_json_object,
    read_safetensors,
    save_safetensors,
)
from npbert.ops.array_module import array_module, to_numpy
from npbert.params import canonical_names, validate_params
from npbert.training.optimizers import Optimizer

OPTIMIZER_NAME: Final = "optimizer.safetensors"
TRAINING_NAME: Final = "training.json"
BEST_NAME: Final = "best"
CHECKPOINT_PATTERN: Final = re.compile(r"checkpoint-(\d{8,})")
# Ours, and that of the package safetensors.
TEMPORARY_PATTERN: Final = re.compile(r"\..*\.tmp|\.tmp\w{6}")

Json = Any


@dataclass
class Progress:
    """Where a run is: with the parameters and the optimiser's moments, all that its future depends on.

    Attributes
    ----------
    step : int
        Optimiser steps that were taken.
    position : dict or None
        In the data, after the last batch that was used. None: at the start.
    best : float or None
        The smallest loss on the held-out data so far.
    best_step : int
        When that was.
    without_gain : int
        Evaluations since then.
    window : dict
        What was measured since the last record of the metrics.
    """

    step: int = 0
    position: dict[str, Json] | None = None
    best: float | None = None
    best_step: int = 0
    without_gain: int = 0
    window: dict[str, Json] = field(default_factory=dict)


class SavedRun:
    """The directory of a run.

    Parameters
    ----------
    directory : path
        Made if need be.
    recipe : mapping of str to JSON value
        What the run was started with: all that its result depends on. A checkpoint of another recipe is
        not gone on with.
    """

    def __init__(self, directory: Path | str, recipe: Mapping[str, Json]) -> None:
        self.directory = Path(directory)
        self.recipe: dict[str, Json] = json.loads(json.dumps(recipe))  # as it will be read: tuples are lists

    @property
    def best(self) -> Path:
        """Where the best model is kept, if one is."""
        return self.directory / BEST_NAME

    def checkpoints(self) -> list[Path]:
        """Return the checkpoints, the newest last."""
        if not self.directory.is_dir():
            return []
        steps = {}
        for path in self.directory.iterdir():
            if match := CHECKPOINT_PATTERN.fullmatch(path.name):
                steps[int(match[1])] = path
        return [steps[step] for step in sorted(steps)]

    def check_is_new(self) -> None:
        """Refuse a directory that holds a run or a model: neither is ever overwritten.

        Raises
        ------
        FileExistsError
        """
        if checkpoints := self.checkpoints():
            step = int(checkpoints[-1].name.partition("-")[2])
            raise FileExistsError(
                f"{self.directory}: a run, saved after step {step}; resume it, or give another directory"
            )
        if (self.directory / CONFIG_NAME).exists():
            raise FileExistsError(f"{self.directory}: holds a model; give another directory")

    def tidy_up(self) -> None:
        """Remove what an interrupted run left half-written."""
        for directory in (self.directory, self.best):
            if not directory.is_dir():
                continue
            for path in directory.iterdir():
                if TEMPORARY_PATTERN.fullmatch(path.name):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        for old in self.checkpoints()[:-1]:
            self._remove(old)

    def save(self, bert: Bert, optimizer: Optimizer, progress: Progress) -> Path:
        """Write a checkpoint, and then remove the one before.

        Parameters
        ----------
        bert : Bert
        optimizer : Optimizer
        progress : Progress

        Returns
        -------
        pathlib.Path

        Raises
        ------
        OSError
            If it cannot be written, say because the disk is full: nothing of it remains then, and the
            checkpoint before is still there.
        """

        def write(directory: Path) -> None:
            bert.save(directory)
            moments = {name: to_numpy(value) for name, value in optimizer.state().items()}
            save_safetensors(directory / OPTIMIZER_NAME, moments)
            record = {"optimizer_steps": optimizer.steps, "progress": asdict(progress), "recipe": self.recipe}
            (directory / TRAINING_NAME).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")

        final = self.directory / f"checkpoint-{progress.step:08d}"
        if final.exists():  # the run has ended where it was last saved
            return final
        earlier = self.checkpoints()
        write_directory(final, write)
        for old in earlier:
            self._remove(old)
        return final

    def restore(self, bert: Bert, optimizer: Optimizer) -> Progress:
        """Put the newest checkpoint's numbers into a model and an optimiser.

        Parameters
        ----------
        bert : Bert
            As the run was started with; its parameters are overwritten.
        optimizer : Optimizer
            Likewise.

        Returns
        -------
        Progress

        Raises
        ------
        FileNotFoundError
            If there is no checkpoint.
        ValueError
            If it is of another recipe, or damaged.
        """
        checkpoints = self.checkpoints()
        if not checkpoints:
            raise FileNotFoundError(f"{self.directory}: no checkpoint to resume from")
        directory = checkpoints[-1]
        record = read_json_object(directory / TRAINING_NAME)
        try:
            recipe, steps = record["recipe"], int(record["optimizer_steps"])
            progress = Progress(**record["progress"])
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"{directory / TRAINING_NAME}: not what npbert writes there") from None
        if difference := first_difference(recipe, self.recipe):
            raise ValueError(f"{directory}: a checkpoint of another run: {difference}")
        optimizer.load_state(read_safetensors(directory / OPTIMIZER_NAME), steps)
        load_params(bert, directory)
        return progress

    def _remove(self, checkpoint: Path) -> None:
        # Renamed first: a checkpoint of which half is deleted must not look like one.
        hidden = checkpoint.with_name(f".{checkpoint.name}.tmp")
        checkpoint.rename(hidden)
        shutil.rmtree(hidden)


def load_params(bert: Bert, directory: Path) -> None:
    """Put the parameters that are saved in a directory into a model.

    Raises
    ------
    ValueError
        If they are not those of such a model.
    """
    params = canonical_names(read_checkpoint(directory, bert.dtype).tensors, bert.config, bert.task)
    validate_params(params, bert.config, bert.task)
    for name, value in bert.params.items():
        value[...] = array_module(value).asarray(params[name])


def write_directory(final: Path, write: Callable[[Path], None]) -> None:
    """Make a directory that appears as a whole or not at all.

    Parameters
    ----------
    final : path
        Must not exist.
    write : callable
        Writes the contents into the directory that it is given.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.with_name(f".{final.name}.tmp")
    if temporary.exists():
        shutil.rmtree(temporary)
    try:
        temporary.mkdir()
        write(temporary)
        for path in temporary.rglob("*"):
            _flush_to_disk(path)
        _flush_to_disk(temporary)
        temporary.rename(final)
    except BaseException:  # KeyboardInterrupt too
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _flush_to_disk(final.parent)


def first_difference(saved: Json, now: Json, name: str = "") -> str:
    """Say where two recipes differ first, "" if nowhere.

    Examples
    --------
    >>> first_difference({"config": {"hidden_size": 256}}, {"config": {"hidden_size": 192}})
    'config.hidden_size is 256 there, and 192 now'
    """
    if isinstance(saved, dict) and isinstance(now, dict):
        for key in [*saved, *(key for key in now if key not in saved)]:
            inner = first_difference(saved.get(key), now.get(key), f"{name}.{key}" if name else key)
            if inner:
                return inner
        return ""
    return "" if saved == now else f"{name} is {json.dumps(saved)} there, and {json.dumps(now)} now"


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
