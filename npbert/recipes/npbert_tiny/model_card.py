"""The model card of npbert-tiny, laid out as on the Hugging Face hub."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any, Final, NamedTuple

from npbert.checkpoint.half_precision import Rounding
from npbert.recipes.npbert_tiny.corpus import HELD_OUT_NAME, SOURCES, TRAIN_NAME
from npbert.recipes.npbert_tiny.evaluation import EXACT_NAME, NEXT_SENTENCE, Figures
from npbert.recipes.npbert_tiny.settings import CONFIG, MAX_LENGTH, MODEL_NAME, SEED, TRAINING, VOCAB_SIZE

TEMPLATE: Final = Path(__file__).with_name("model_card.md")

# What is shown of the model's guesses, right or wrong.
EXAMPLES: Final = (
    "a violin is a [MASK] instrument.",
    "a dog is a domesticated [MASK].",
    "a physician is a person who practices [MASK].",
    "an oak is a large [MASK].",
    "paris is the [MASK] of france.",
    "happy means feeling [MASK].",
    "to run is to [MASK] fast.",
    "in the beginning god created the [MASK].",
)


class CardFacts(NamedTuple):
    """What a card says that is not known before the model is trained.

    Attributes
    ----------
    parameters : int
    file_size : int
        Bytes of the weights.
    counts : dict
        Documents, sentences and words, as the corpus step counts them.
    figures : dict
        On the held-out text; see `npbert.recipes.npbert_tiny.evaluation`.
    rounding : Rounding
        What float16 did to the parameters.
    guesses : sequence of (str, sequence of (str, float))
        Texts with a mask, and the model's best words with their probabilities.
    """

    parameters: int
    file_size: int
    counts: Mapping[str, Mapping[str, int]]
    figures: Figures
    rounding: Rounding
    guesses: Sequence[tuple[str, Sequence[tuple[str, float]]]]


def model_card(facts: CardFacts) -> str:
    """Return the card: the template ``model_card.md`` with the facts in it.

    Parameters
    ----------
    facts : CardFacts

    Returns
    -------
    str
        Markdown, with YAML in front.
    """
    pairs = facts.figures[NEXT_SENTENCE]
    model, exact = facts.figures[MODEL_NAME], facts.figures[EXACT_NAME]
    rounding = facts.rounding
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        example=EXAMPLES[0],
        parameters=f"{facts.parameters / 1e6:.1f} million",
        layers=CONFIG.num_hidden_layers,
        width=CONFIG.hidden_size,
        heads=CONFIG.num_attention_heads,
        feed_forward=CONFIG.intermediate_size,
        vocab_size=f"{VOCAB_SIZE:,}",
        max_length=MAX_LENGTH,
        file_size=f"{facts.file_size / 1e6:.1f} MB",
        guesses=_table(
            ("text", "its best words"), [(f"`{text}`", _words(words)) for text, words in facts.guesses]
        ),
        corpus=_corpus_table(facts.counts),
        options=" ".join(
            f"--{name}" if value is None else f"--{name} {value}" for name, value in TRAINING.items()
        ),
        seed=SEED,
        places=f"{model['places']:,}",
        figures=_figures_table(facts.figures),
        next_sentence_accuracy=f"{pairs['accuracy']:.1%}",
        pairs=f"{pairs['pairs']:,}",
        largest_change=f"{rounding.largest_change:.1e}",
        vanished=f"{rounding.vanished:,}",
        values=f"{rounding.values:,}",
        exact_accuracy=f"{exact['accuracy']:.3%}",
        exact_perplexity=f"{exact['perplexity']:.4f}",
        accuracy=f"{model['accuracy']:.3%}",
        perplexity=f"{model['perplexity']:.4f}",
    )


def _corpus_table(counts: Mapping[str, Mapping[str, int]]) -> str:
    columns = ("documents", "sentences", "words")
    rows = [
        (
            f"{source.title} (Debian's {source.package} {source.version})",
            source.licence,
            counts[source.package],
        )
        for source in SOURCES
    ]
    rows += [("training", "", counts[TRAIN_NAME]), ("held out", "", counts[HELD_OUT_NAME])]
    cells = [(name, licence, *(f"{row[column]:,}" for column in columns)) for name, licence, row in rows]
    return _table(("text", "licence", *columns), cells)


def _figures_table(figures: Figures) -> str:
    rows = [
        (name, f"{row['accuracy']:.1%}", f"{row['perplexity']:.1f}")
        for name, row in figures.items()
        if name not in (NEXT_SENTENCE, EXACT_NAME)
    ]
    return _table(("", "accuracy", "perplexity"), rows)


def _words(words: Sequence[tuple[str, float]]) -> str:
    return ", ".join(f"{word} {probability:.2f}" for word, probability in words)


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
