"""Sentences with a tag for each word: names of people and places, parts of speech."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from npbert.config import BertConfig
from npbert.data.conll import Piece, encode_sentences, read_conll, tag_names
from npbert.data.entities import are_entity_tags, entity_scores
from npbert.data.labelled import EncodedExample
from npbert.ops import softmax_forward
from npbert.tokenizer import WordPieceTokenizer
from npbert.training.tasks.interface import Logits, Record


class SentenceFile:
    """A file of tagged words; see `npbert.data.conll.read_conll` for the arguments and what may be wrong.

    Parameters
    ----------
    path : path
    token_column : int
    tag_column : int or None
    separator : str
    """

    task = "token_classification"

    def __init__(
        self,
        path: Path | str,
        token_column: int = 1,
        tag_column: int | None = -1,
        separator: str = "whitespace",
    ) -> None:
        self.path = path
        self.is_labelled = tag_column is not None
        self.sentences = read_conll(path, token_column, tag_column, separator)
        self.count = len(self.sentences)
        self.pieces: list[Piece] = []

    def config_fields(self) -> Record:
        """Return the names of the tags; see `TaskFile`."""
        return {"id2label": dict(enumerate(tag_names(self.path, self.sentences)))}

    def encode(
        self,
        tokenizer: WordPieceTokenizer,
        config: BertConfig,
        max_length: int,
        advance: Callable[[int], None] = lambda done: None,
    ) -> list[EncodedExample]:
        """Return an example for each sentence, several for one that is too long; see `TaskFile`."""
        numbers = None
        if self.is_labelled:
            numbers = {name: number for number, name in enumerate(config.label_names)}
        examples, self.pieces = encode_sentences(
            self.path, self.sentences, tokenizer, max_length, numbers, advance
        )
        return examples

    def answers(self, logits: Sequence[Logits], config: BertConfig) -> list[Record]:
        """Return for each sentence its "words", their "tags", and the "probabilities" of these."""
        names = config.label_names
        records: list[Record] = [
            {"words": list(sentence.words), "tags": [], "probabilities": []} for sentence in self.sentences
        ]
        for piece, one in zip(self.pieces, logits, strict=True):
            probs, _ = softmax_forward(one["logits"][piece.first_tokens])  # (words, C)
            best = probs.argmax(axis=-1)
            record = records[piece.sentence]
            record["tags"] += [names[int(number)] for number in best]
            record["probabilities"] += np.take_along_axis(probs, best[:, None], axis=-1)[:, 0].tolist()
        return records

    def scores(self, answers: Sequence[Record]) -> Record:
        """Return how good the answers are; see `TaskFile`.

        Returns
        -------
        dict
            "accuracy", of the words' tags; where tags mark entities, also their "precision", "recall", "f1".
        """
        true = [list(sentence.tags or ()) for sentence in self.sentences]
        found = [answer["tags"] for answer in answers]
        words = sum(map(len, true))
        right = sum(
            a == b
            for some, others in zip(true, found, strict=True)
            for a, b in zip(some, others, strict=True)
        )
        record: Record = {"accuracy": right / words}
        if are_entity_tags({tag for tags in true for tag in tags}):
            record |= entity_scores(true, found)._asdict()
        return record

    def rows(self, answers: Sequence[Record]) -> list[Record]:
        """Return a row for each word, with the number of its sentence, from 1."""
        rows: list[Record] = []
        for number, answer in enumerate(answers, start=1):
            for word, tag, p in zip(answer["words"], answer["tags"], answer["probabilities"], strict=True):
                rows.append({"sentence": number, "word": word, "tag": tag, "probability": p})
        return rows
