"""The tiny BERT of ``npbert demo``, which learns some sentences by heart: the gradients do their work."""

import re
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np

from npbert.bert import Bert
from npbert.config import BertConfig
from npbert.params import init_params
from npbert.tokenizer import WordPieceTokenizer
from npbert.training.adamw import AdamW

# Any word of a sentence follows from the others: no two differ in one word only.
SENTENCES: Final = (
    "the cat drinks milk",
    "the cow eats grass",
    "the bee makes honey",
    "the hen lays eggs",
    "the sun shines by day",
    "the moon shines by night",
    "fire is hot and red",
    "ice is cold and clear",
    "coal is black and hard",
    "snow is white and soft",
    "paris lies in france",
    "rome lies in italy",
    "cairo lies in egypt",
    "tokyo lies in japan",
)
SPECIAL_TOKENS: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
NOT_MASKED: Final = -100  # the label of a token that the loss passes over

STEPS: Final = 400
PEAK_LEARNING_RATE: Final = 3e-3
WARM_UP_STEPS: Final = 30


class Gap(NamedTuple):
    """A sentence with one word masked, and what the model puts there."""

    text: str
    expected: str
    predicted: str
    probability: float

    @property
    def right(self) -> bool:
        """Whether the model found the word."""
        return self.predicted == self.expected


def untrained_bert(seed: int) -> Bert:
    """Return a BERT of two layers with a vocabulary of the words of `SENTENCES`, and random parameters."""
    words = sorted({word for sentence in SENTENCES for word in sentence.split()})
    tokenizer = WordPieceTokenizer([*SPECIAL_TOKENS, *words])
    config = BertConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=8,
        initializer_range=0.1,  # a narrow model starts sooner from larger weights than BERT's 0.02
    )
    return Bert(config, init_params(config, "masked_lm", seed), tokenizer, task="masked_lm")


def train(bert: Bert, seed: int, report: Callable[[float], None]) -> None:
    """Train on the sentences, in place: in each step, one word of each sentence is masked.

    Parameters
    ----------
    bert : Bert
        As `untrained_bert` returns it.
    seed : int
        Seed of the words that are masked.
    report : callable
        Called with the loss of each of the `STEPS` steps.
    """
    rng = np.random.default_rng(seed)
    optimizer = AdamW(bert.params, weight_decay=0.0)
    assert bert.tokenizer is not None
    batch = bert.tokenizer.batch(SENTENCES)
    lengths = batch["attention_mask"].sum(axis=1)  # (B,), with [CLS] and [SEP]
    rows = np.arange(len(SENTENCES))
    for step in range(STEPS):
        masked = rng.integers(1, lengths - 1)  # (B,): neither [CLS] nor [SEP]
        labels = np.full_like(batch["input_ids"], NOT_MASKED)  # (B, T)
        labels[rows, masked] = batch["input_ids"][rows, masked]
        input_ids = batch["input_ids"].copy()
        input_ids[rows, masked] = bert.tokenizer.mask_id

        loss, grads = bert.loss_and_grads(
            input_ids=input_ids, attention_mask=batch["attention_mask"], labels=labels
        )
        optimizer.step(grads, learning_rate(step))
        report(float(loss))


def learning_rate(step: int) -> float:
    """Return the rate of one step: it rises for `WARM_UP_STEPS`, then falls towards zero, both linearly."""
    return PEAK_LEARNING_RATE * min((step + 1) / WARM_UP_STEPS, 1 - step / STEPS)


def fill_every_gap(bert: Bert) -> list[Gap]:
    """Mask each word of each sentence in turn, and return what the model puts there."""
    gaps = []
    for sentence in SENTENCES:
        for word in re.finditer(r"\w+", sentence):
            text = sentence[: word.start()] + "[MASK]" + sentence[word.end() :]
            best = bert.fill_mask(text, top_k=1)[0][0]
            gaps.append(Gap(text, word[0], best.token, best.probability))
    return gaps
