"""What is measured while a model trains: kept for some steps, then written as a line of JSON."""

import json
from pathlib import Path
from typing import Any, Final

from npbert.training.step import Tallies, Tally, add_tallies

METRICS_NAME: Final = "metrics.jsonl"

# What the losses of pre-training are called; a task with one loss needs no name.
SHORT_NAMES: Final = {"pretraining": {"labels": "mlm", "next_sentence_label": "nsp"}}

Record = dict[str, Any]


class Window:
    """What was measured since the last record.

    Attributes
    ----------
    steps, tokens : int
    loss, seconds : float
        Sums over the steps.
    tallies : dict of str to Tally
    """

    def __init__(self) -> None:
        self.steps = 0
        self.tokens = 0
        self.loss = 0.0
        self.seconds = 0.0
        self.tallies: Tallies = {}

    def add(self, loss: float, tallies: Tallies, tokens: int, seconds: float) -> None:
        """Take in one step."""
        self.steps += 1
        self.tokens += tokens
        self.loss += loss
        self.seconds += seconds
        self.tallies = add_tallies(self.tallies, tallies)

    def summary(self, task: str) -> Record:
        """Return the means: loss, losses and accuracies by task, tokens a second."""
        record: Record = {"loss": self.loss / max(self.steps, 1)}
        record |= accuracies(self.tallies, task)
        record["tokens_per_second"] = self.tokens / self.seconds if self.seconds > 0 else 0.0
        return record

    def to_json(self) -> Record:
        """Return all that `from_json` needs."""
        tallies = {name: [some.count, some.loss, some.correct] for name, some in self.tallies.items()}
        numbers = {"steps": self.steps, "tokens": self.tokens, "loss": self.loss, "seconds": self.seconds}
        return numbers | {"tallies": tallies}

    @classmethod
    def from_json(cls, record: Record) -> "Window":
        """Return the window that `to_json` was called on; of an empty record, an empty one."""
        window = cls()
        for name, value in record.items():
            setattr(window, name, value)
        window.tallies = {name: Tally(*numbers) for name, numbers in record.get("tallies", {}).items()}
        return window


def accuracies(tallies: Tallies, task: str) -> Record:
    """Return the losses and accuracies of a task by the names that records have.

    Examples
    --------
    >>> accuracies({"labels": Tally(4, 2.0, 3), "next_sentence_label": Tally(2, 1.0, 2)}, "pretraining")
    {'mlm_loss': 0.5, 'mlm_accuracy': 0.75, 'nsp_loss': 0.5, 'nsp_accuracy': 1.0}
    >>> accuracies({"labels": Tally(4, 2.0, 3)}, "sequence_classification")
    {'accuracy': 0.75}
    """
    record: Record = {}
    names = SHORT_NAMES.get(task)
    for labels, some in tallies.items():
        prefix = f"{names[labels]}_" if names else ""
        if names:
            record[f"{prefix}loss"] = some.mean_loss
        if some.accuracy is not None:
            record[f"{prefix}accuracy"] = some.accuracy
    return record


class MetricsFile:
    """The records of a run, one JSON object a line, the newest last.

    Parameters
    ----------
    directory : path
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / METRICS_NAME

    def last(self) -> Record:
        """Return the newest record; an empty one without any."""
        records = read_metrics(self.path) if self.path.exists() else []
        return records[-1] if records else {}

    def append(self, record: Record) -> None:
        """Write one record, so that a reader of the file has it at once."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def cut_after(self, step: int) -> None:
        """Drop the records of later steps, which will be taken again, and a line that broke off."""
        if not self.path.exists():
            return
        kept = [line for line in read_metrics(self.path) if line["step"] <= step]
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        temporary.replace(self.path)


def read_metrics(path: Path) -> list[Record]:
    """Return the records of a metrics file; a last line that broke off is left out.

    Raises
    ------
    ValueError
        If another line is not a record. Names the file and the line.
    """
    records: list[Record] = []
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            record["step"]
        except (json.JSONDecodeError, TypeError, KeyError):
            if number == len(lines):
                break
            raise ValueError(f"{path}: line {number}: not a record of metrics") from None
        records.append(record)
    return records
