"""Texts, or pairs of texts, with a label each: one class, several classes, or a number."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from npbert.config import BertConfig
from npbert.data.label_names import label_array, label_names
from npbert.data.labelled import EncodedExample, encode_texts
from npbert.data.tables import Columns, read_table
from npbert.ops import softmax_forward
from npbert.ops.sigmoid import sigmoid
from npbert.tokenizer import WordPieceTokenizer
from npbert.training.tasks.interface import Logits, Record

Array = NDArray[Any]

APPLIES: Final = 0.5  # from this probability on, one of several labels applies


class TextFile:
    """A table of texts; see `npbert.data.tables.read_table` for the arguments and what may be wrong.

    Parameters
    ----------
    path : path
    columns : Columns
    problem_type : str
    label_separator : str
    """

    task = "sequence_classification"

    def __init__(
        self,
        path: Path | str,
        columns: Columns,
        problem_type: str = "single_label_classification",
        label_separator: str = ",",
    ) -> None:
        self.path = path
        self.problem_type = problem_type
        self.label_separator = label_separator
        self.is_labelled = columns.label is not None
        self.examples = read_table(path, columns, problem_type, label_separator)
        self.count = len(self.examples)

    def config_fields(self) -> Record:
        """Return the names of the labels and the kind of problem; see `TaskFile`."""
        if self.problem_type == "regression":
            return {"num_labels": 1, "problem_type": self.problem_type}
        names = label_names(self.path, self.examples, self.problem_type)
        return {"id2label": dict(enumerate(names)), "problem_type": self.problem_type}

    def encode(
        self,
        tokenizer: WordPieceTokenizer,
        config: BertConfig,
        max_length: int,
        advance: Callable[[int], None] = lambda done: None,
    ) -> list[EncodedExample]:
        """Return one example for each text; see `TaskFile`."""
        texts = [example.text for example in self.examples]
        pairs = [example.pair for example in self.examples if example.pair is not None]
        encoded = encode_texts(texts, pairs or None, tokenizer, max_length, advance)
        if not self.is_labelled:
            return encoded
        numbers = {name: number for number, name in enumerate(config.label_names)}
        return [
            one._replace(labels={"labels": label_array(self.path, example, numbers, self.problem_type)})
            for one, example in zip(encoded, self.examples, strict=True)
        ]

    def answers(self, logits: Sequence[Logits], config: BertConfig) -> list[Record]:
        """Return a record for each text.

        Returns
        -------
        list of dict
            "text", "pair" where there is one, and "label", its "probability" and those of all labels,
            "probabilities"; or "labels", those that apply, and "probabilities"; or "value".
        """
        records: list[Record] = []
        for example, one in zip(self.examples, logits, strict=True):
            texts = {"text": example.text} | ({} if example.pair is None else {"pair": example.pair})
            records.append(texts | self._answer(one["logits"], config.label_names))
        return records

    def _answer(self, scores: Array, names: Sequence[str]) -> Record:
        """Return what the scores (C,) of one text mean."""
        if self.problem_type == "regression":
            return {"value": float(scores[0])}
        several = self.problem_type == "multi_label_classification"
        probs = sigmoid(scores) if several else softmax_forward(scores)[0]  # (C,)
        probabilities = dict(zip(names, probs.tolist(), strict=True))
        if several:
            applying = [name for name, p in probabilities.items() if p >= APPLIES]
            return {"labels": applying, "probabilities": probabilities}
        best = names[int(probs.argmax())]
        return {"label": best, "probability": probabilities[best], "probabilities": probabilities}

    def scores(self, answers: Sequence[Record]) -> Record:
        """Return how good the answers are; see `TaskFile`.

        Returns
        -------
        dict
            "accuracy" and "macro_f1", the mean of the classes' F1; for several labels "micro_f1", that of all
            labels of all texts, and "exact_match", the share of texts without any mistake; for numbers
            "mean_squared_error" and "pearson", their correlation with the true ones (0, where there is none).
        """
        true = [example.label for example in self.examples]
        if self.problem_type == "regression":
            return _regression_scores(np.array(true), np.array([answer["value"] for answer in answers]))
        if self.problem_type == "multi_label_classification":
            true_sets = [set(labels) for labels in true if isinstance(labels, tuple)]
            found_sets = [set(answer["labels"]) for answer in answers]
            return _multi_label_scores(true_sets, found_sets)
        return _class_scores([str(label) for label in true], [answer["label"] for answer in answers])

    def rows(self, answers: Sequence[Record]) -> list[Record]:
        """Return the texts with their answers, flat: a column for each probability."""
        rows = []
        for answer in answers:
            row = {name: value for name, value in answer.items() if name != "probabilities"}
            if "labels" in row:
                row["labels"] = self.label_separator.join(row["labels"])
            row |= {f"P({name})": p for name, p in answer.get("probabilities", {}).items()}
            rows.append(row)
        return rows


def problem_type_of(config: BertConfig) -> str:
    """Return what a label is; decided as transformers does, where the configuration does not say."""
    if config.problem_type is not None:
        return config.problem_type
    return "regression" if config.num_labels == 1 else "single_label_classification"


def _class_scores(true: Sequence[str], found: Sequence[str]) -> Record:
    pairs = list(zip(true, found, strict=True))
    accuracy = sum(a == b for a, b in pairs) / len(pairs)
    f1 = []
    for name in sorted({*true, *found}):
        right = sum(a == b == name for a, b in pairs)
        f1.append(2 * right / (true.count(name) + found.count(name)))
    return {"accuracy": accuracy, "macro_f1": sum(f1) / len(f1)}


def _multi_label_scores(true: Sequence[set[str]], found: Sequence[set[str]]) -> Record:
    pairs = list(zip(true, found, strict=True))
    right = sum(len(a & b) for a, b in pairs)
    labels = sum(len(a) + len(b) for a, b in pairs)
    exact = sum(a == b for a, b in pairs) / len(pairs)
    return {"micro_f1": 2 * right / labels if labels else 0.0, "exact_match": exact}


def _regression_scores(true: Array, found: Array) -> Record:
    error = float(np.mean((found - true) ** 2))
    true_deviation, found_deviation = true - true.mean(), found - found.mean()
    scale = float(np.linalg.norm(true_deviation) * np.linalg.norm(found_deviation))
    pearson = float(true_deviation @ found_deviation) / scale if scale > 0 else 0.0
    return {"mean_squared_error": error, "pearson": pearson}
