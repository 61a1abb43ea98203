"""How well npbert-tiny does on the text that was held out, beside the baselines."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from npbert.bert import Bert
from npbert.data.documents import read_documents
from npbert.data.masking import BERT_MASKING
from npbert.data.pretraining import Batch, PretrainingData
from npbert.recipes.npbert_tiny.baselines import evaluate_baselines, tuned_bigrams
from npbert.recipes.npbert_tiny.corpus import HELD_OUT_NAME, TRAIN_NAME
from npbert.recipes.npbert_tiny.settings import MAX_LENGTH, MODEL_NAME, SEED
from npbert.tokenizer import WordPieceTokenizer
from npbert.training.step import Tally, evaluate

Figures = dict[str, dict[str, Any]]

NEXT_SENTENCE: Final = "next sentence"
EXACT_NAME: Final = f"{MODEL_NAME} before rounding"  # to float16


def held_out_batches(work: Path, tokenizer: WordPieceTokenizer) -> Iterator[Batch]:
    """Return the held-out text as batches, with the same masks and pairs at each call."""
    data = PretrainingData(
        work / HELD_OUT_NAME, tokenizer, batch_size=32, max_length=MAX_LENGTH, masking=BERT_MASKING, seed=SEED
    )
    return data.one_pass()


def model_figures(bert: Bert, work: Path) -> Figures:
    """Return what a model achieves.

    Parameters
    ----------
    bert : Bert
        For the task "pretraining", with a tokenizer.
    work : pathlib.Path
        Holds the held-out text.

    Returns
    -------
    dict
        Of `MODEL_NAME` as `masked_word_figures`; of `NEXT_SENTENCE` pairs, accuracy and loss.
    """
    assert bert.tokenizer is not None
    _, tallies = evaluate(bert, held_out_batches(work, bert.tokenizer))
    pairs = tallies["next_sentence_label"]
    return {
        MODEL_NAME: masked_word_figures(tallies["labels"]),
        NEXT_SENTENCE: {"pairs": pairs.count, "accuracy": pairs.accuracy, "loss": pairs.mean_loss},
    }


def baseline_figures(tokenizer: WordPieceTokenizer, work: Path) -> Figures:
    """Return what the baselines achieve at the same masked places, counted on the training text.

    Parameters
    ----------
    tokenizer : WordPieceTokenizer
    work : pathlib.Path
        Holds the training and the held-out text.

    Returns
    -------
    dict
        Of each baseline, as `masked_word_figures`.
    """
    documents = []
    for document in read_documents([work / TRAIN_NAME]):
        sentences = tokenizer.encode_ids(document.sentences, add_special_tokens=False)
        documents.append([piece for sentence in sentences for piece in sentence])
    bigrams, _ = tuned_bigrams(documents, tokenizer.vocab_size)
    tallies = evaluate_baselines(held_out_batches(work, tokenizer), bigrams, tokenizer.mask_id, BERT_MASKING)
    return {name: masked_word_figures(tally) for name, tally in tallies.items()}


def masked_word_figures(tally: Tally) -> dict[str, Any]:
    """Return the accuracy and the perplexity at masked places.

    Examples
    --------
    >>> masked_word_figures(Tally(count=4, loss=0.0, correct=1))
    {'places': 4, 'accuracy': 0.25, 'perplexity': 1.0}
    """
    return {"places": tally.count, "accuracy": tally.accuracy, "perplexity": math.exp(tally.mean_loss)}
