"""``npbert bench inference --scaling``: what encoding costs as texts, batch, layers and workers grow."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from npbert.bench.comparison import FLOOR, Comparison
from npbert.bench.contest import Contender, contest
from npbert.bench.floor import Floor, chunks_of, forward_products
from npbert.bench.inference import VectorCheck
from npbert.bench.machine import threads_of_numpy
from npbert.bench.texts import text_of_length
from npbert.bert import Bert
from npbert.pooling import PoolingSettings

TOKENS: Final = (16, 32, 64, 128, 256, 512)
BATCHES: Final = (1, 2, 4, 8, 16, 32)
LAYERS: Final = (1, 2, 4, 6, 12)
PARAMETERS: Final = ("tokens", "texts", "layers", "workers")
AT: Final = {"tokens": 128, "texts": 8}  # what does not grow
MIN_SECONDS: Final = 0.05


def compare_growth(
    bert: Bert, backends: Sequence[str], threads: int, rounds: int, parameters: Sequence[str] = PARAMETERS
) -> Iterator[Comparison]:
    """Compare npbert's engines with the floor as one number after the other grows.

    Parameters
    ----------
    bert : Bert
        An encoder with a tokenizer.
    backends : sequence of str
    threads, rounds : int
    parameters : sequence of str
        Some of `PARAMETERS`: what grows. ``comparison.facts["grows"]`` says it of each comparison.
    """
    assert bert.tokenizer is not None
    most_layers = bert.config.num_hidden_layers
    longest = min(bert.config.max_position_embeddings, bert.tokenizer.model_max_length or TOKENS[-1])
    values = {
        "tokens": [size for size in TOKENS if size <= longest],
        "texts": list(BATCHES),
        "layers": [size for size in LAYERS if size <= most_layers],
        "workers": list(range(1, threads + 1)),
    }
    for parameter in parameters:
        for value in values[parameter]:
            sizes = AT | {"layers": most_layers, "workers": threads} | {parameter: value}
            sizes["tokens"] = min(sizes["tokens"], longest)
            yield _compare(bert, backends, sizes, parameter, rounds)


def _compare(
    bert: Bert, backends: Sequence[str], sizes: dict[str, int], parameter: str, rounds: int
) -> Comparison:
    assert bert.tokenizer is not None
    texts = [text_of_length(bert.tokenizer, sizes["tokens"])] * sizes["texts"]
    lengths = [sizes["tokens"]] * sizes["texts"]
    check = VectorCheck(_shallow(bert, sizes["layers"], "reference"), texts, lengths)
    with threads_of_numpy(sizes["workers"]):
        contenders = [
            Contender(f"npbert {name}", partial(_shallow(bert, sizes["layers"], name).encode, texts), check)
            for name in backends
        ]
        config = bert.config.replace(num_hidden_layers=sizes["layers"])
        floor = Floor([forward_products(config, chunk) for chunk in chunks_of(lengths)])
        outcomes = contest([*contenders, Contender(FLOOR, floor.run)], rounds, MIN_SECONDS)
    facts: dict[str, Any] = {**sizes, "grows": parameter}
    return Comparison(
        title=f"{sizes[parameter]} {parameter}",
        facts=facts,
        outcomes=tuple(outcomes),
        base=contenders[0].name,
        tokens=sum(lengths),
        flops=floor.flops,
    )


def _shallow(bert: Bert, layers: int, backend: str) -> Bert:
    """Return the encoder's first layers, for texts of any length."""
    prefixes = tuple(f"encoder.layer.{layer}." for layer in range(layers, bert.config.num_hidden_layers))
    params = {name: value for name, value in bert.params.items() if not name.startswith(prefixes)}
    pooling = replace(bert.pooling or PoolingSettings(), max_seq_length=None)
    config = bert.config.replace(num_hidden_layers=layers)
    return Bert(config, params, bert.tokenizer, task="encoder", backend=backend, pooling=pooling)
