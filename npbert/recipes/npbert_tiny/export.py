"""Writing the trained npbert-tiny as it ships: float16, with its tokenizer and its model card."""

import math
from pathlib import Path

from npbert.bert import Bert
from npbert.checkpoint.half_precision import to_half_precision
from npbert.checkpoint.huggingface import read_json_object, write_checkpoint
from npbert.params import Params
from npbert.recipes.npbert_tiny.corpus import COUNTS_NAME
from npbert.recipes.npbert_tiny.evaluation import EXACT_NAME, Figures, baseline_figures, model_figures
from npbert.recipes.npbert_tiny.model_card import EXAMPLES, CardFacts, model_card
from npbert.recipes.npbert_tiny.settings import MAX_WEIGHTS, MODEL_NAME
from npbert.tokenizer import WordPieceTokenizer

CARD_NAME = "README.md"


def export_model(bert: Bert, work: Path, out: Path) -> Figures:
    """Write a trained model rounded to float16, with a model card that says how well it does.

    Parameters
    ----------
    bert : Bert
        As trained: float32, for the task "pretraining".
    work : pathlib.Path
        The directory of the recipe: its corpus, its counts, its tokenizer.
    out : pathlib.Path
        The directory to write.

    Returns
    -------
    dict
        The figures on the held-out text: of the rounded model, of the one before, of the baselines.

    Raises
    ------
    ValueError
        If a parameter does not fit float16, or the weights exceed `MAX_WEIGHTS`.
    """
    tokenizer = WordPieceTokenizer.from_directory(work)
    if bert.tokenizer is None or bert.tokenizer.vocab != tokenizer.vocab:
        raise ValueError(f"the model's vocabulary is not that of {work}")
    halved, rounding = to_half_precision(bert.params)
    size = sum(value.nbytes for value in halved.values())
    if size > MAX_WEIGHTS:
        raise ValueError(f"the weights take {size:,} bytes in float16; at most {MAX_WEIGHTS:,} are shipped")

    rounded = Bert(bert.config, _widened(halved), tokenizer, bert.task)
    figures = model_figures(rounded, work)
    figures[EXACT_NAME] = model_figures(bert, work)[MODEL_NAME]
    figures |= baseline_figures(tokenizer, work)
    guesses = [
        (text, [(word.token, word.probability) for word in rounded.fill_mask(text, top_k=3)[0]])
        for text in EXAMPLES
    ]
    parameters = sum(math.prod(value.shape) for value in halved.values())
    counts = read_json_object(work / COUNTS_NAME)
    card = model_card(CardFacts(parameters, size, counts, figures, rounding, guesses))
    write_checkpoint(out, bert.config, halved, bert.task, other_files={**tokenizer.files(), CARD_NAME: card})
    return figures


def _widened(halved: Params) -> Params:
    return {name: value.astype("float32") for name, value in halved.items()}
