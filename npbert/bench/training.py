"""``npbert bench training``: the loss and all gradients of a batch."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npbert.bench.comparison import FLOOR, Comparison
from npbert.bench.contest import Contender, contest
from npbert.bench.floor import Floor, Product, chunks_of, decoder_products, forward_products, with_gradients
from npbert.bench.machine import threads_of_numpy
from npbert.bench.memory import peak_bytes_of
from npbert.bench.peers import Peer
from npbert.bench.peers.torch_training import PEERS
from npbert.bert import Bert
from npbert.config import BertConfig
from npbert.labels import IGNORE_INDEX
from npbert.loading import load
from npbert.params import Params, init_params

Array = NDArray[Any]
LossAndGrads = tuple[Any, Mapping[str, Array]]
Step = Callable[[], LossAndGrads]

BATCH, TOKENS, MASKED = 32, 128, 0.15
VOCABULARY: Final = 30_522
CHUNK_TOKENS: Final = 512
STEPS_FOR_MEMORY: Final = 2
# Of a tensor's norm, and of the largest of all: some gradients are zero, up to round-off.
TOLERANCE, NOISE = 1e-3, 1e-6


class Problem(NamedTuple):
    """A model and a batch.

    Attributes
    ----------
    title : str
    config : BertConfig
    task : str
    params : dict of str to array
    batch : dict of str to array
        Arguments of `Bert.loss_and_grads`.
    """

    title: str
    config: BertConfig
    task: str
    params: Params
    batch: dict[str, Any]


def pretraining(layers: int, hidden: int, batch: int = BATCH, tokens: int = TOKENS) -> Problem:
    """Return a pre-training batch: random words of which 15 % are to be guessed, heads 64 wide."""
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=max(1, hidden // 64),
        intermediate_size=4 * hidden,
        max_position_embeddings=max(512, tokens),
    )
    rng = np.random.default_rng(0)
    input_ids = rng.integers(1000, VOCABULARY, (batch, tokens))
    masked = np.zeros(batch * tokens, dtype=bool)
    masked[rng.choice(masked.size, max(1, round(MASKED * masked.size)), replace=False)] = True
    labels = np.where(masked.reshape(batch, tokens), input_ids, IGNORE_INDEX)
    arrays = {
        "input_ids": input_ids,
        "attention_mask": np.ones((batch, tokens), dtype=np.int64),
        "token_type_ids": np.broadcast_to(np.arange(tokens) >= tokens // 2, (batch, tokens)).astype(np.int64),
        "labels": labels,
        "next_sentence_label": rng.integers(0, 2, batch),
    }
    title = f"pre-training, {layers} layers x {hidden}, {batch} x {tokens} tokens, {MASKED:.0%} masked"
    return Problem(title, config, "pretraining", init_params(config, "pretraining", seed=0), arrays)


def classification(directory: Path | str, texts: Sequence[str], tokens: int = TOKENS) -> Problem:
    """Return a batch of texts of two classes, padded to the longest, for a checkpoint with a fresh head."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the head is freshly drawn: that is the intention
        bert = load(directory, task="sequence_classification", num_labels=2)
    assert bert.tokenizer is not None
    rows = bert.tokenizer.encode_ids(list(texts), max_length=tokens)
    longest = max(map(len, rows))
    input_ids = np.zeros((len(rows), longest), dtype=np.int64)
    mask = np.zeros_like(input_ids)
    for index, row in enumerate(rows):
        input_ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
    arrays = {
        "input_ids": input_ids,
        "attention_mask": mask,
        "token_type_ids": np.zeros_like(input_ids),
        "labels": np.arange(len(rows)) % 2,
    }
    title = f"sequence classification of {len(rows)} texts, mean {mask.sum() / len(rows):.0f} tokens"
    return Problem(title, bert.config, bert.task, bert.params, arrays)


PROBLEMS: Final[dict[str, Callable[..., Problem]]] = {
    "pretraining": pretraining,
    "classification": classification,
}


def compare_training(
    problem: Problem,
    backends: Sequence[str],
    peers: Sequence[Peer],
    rounds: int,
    threads: int,
    peaks: Mapping[str, int] | None = None,
) -> Comparison:
    """Compare the time of a loss and all gradients.

    Parameters
    ----------
    problem : Problem
    backends : sequence of str
        npbert's engines; the others are compared with the first.
    peers : sequence of Peer
    rounds, threads : int
    peaks : mapping of str to int, optional
        From `peak_memory`.
    """
    textbook = Bert(problem.config, problem.params, task=problem.task, dtype=np.float64, backend="reference")
    check = partial(wrong_gradients, expected=textbook.loss_and_grads(**problem.batch))
    contenders = [Contender(f"npbert {name}", _step(problem, name), check) for name in backends]
    contenders += [Contender(peer.name, peer.build(problem, threads), check) for peer in peers]
    floor = training_floor(problem)
    contenders.append(Contender(FLOOR, floor.run))
    lengths = problem.batch["attention_mask"].sum(axis=1)
    return Comparison(
        title=problem.title,
        facts={
            "batch": len(lengths),
            "tokens": int(lengths.sum()),
            "layers": problem.config.num_hidden_layers,
            "hidden_size": problem.config.hidden_size,
        },
        outcomes=tuple(contest(contenders, rounds)),
        base=contenders[0].name,
        tokens=int(lengths.sum()),
        flops=floor.flops,
        peak_bytes=dict(peaks or {}),
    )


def training_floor(problem: Problem) -> Floor:
    """Return the matrix products that a problem's gradients take.

    Forward and backward, logits only where a label is, and of the last layer what the loss is computed from.
    """
    lengths = problem.batch["attention_mask"].sum(axis=1).tolist()
    total, config = sum(lengths), problem.config
    masked = int((problem.batch["labels"] != IGNORE_INDEX).sum()) if problem.task == "pretraining" else 0
    chunks = []
    for chunk in chunks_of(lengths, CHUNK_TOKENS):
        wanted = [
            1 + round(masked * length / total) for length in chunk
        ]  # the first token, and labelled ones
        products: list[Product] = forward_products(config, chunk, pooler=True, wanted=wanted)
        share = round(masked * sum(chunk) / total)
        if share:
            products += decoder_products(config, share)
        chunks.append(with_gradients(products))
    return Floor(chunks)


def wrong_gradients(found: LossAndGrads, expected: LossAndGrads) -> str:
    """Return what is wrong with a loss and its gradients, "" for nothing."""
    loss, grads = found
    expected_loss, expected_grads = expected
    if not abs(float(loss) - float(expected_loss)) <= TOLERANCE * abs(float(expected_loss)):
        return f"wrong: the loss is {float(loss):.6g}, not {float(expected_loss):.6g}"
    if missing := sorted(expected_grads.keys() - grads.keys()):
        return f"wrong: no gradient of {missing[0]}"
    norms = {name: float(np.linalg.norm(value)) for name, value in expected_grads.items()}
    noise = NOISE * max(norms.values())
    for name, value in expected_grads.items():
        error = float(np.linalg.norm(np.asarray(grads[name], dtype=np.float64) - value))
        if not error <= TOLERANCE * norms[name] + noise:
            return (
                f"wrong: the gradient of {name} is off by {error / max(norms[name], noise):.1e} of its norm"
            )
    return ""


def peak_memory(problem: str, contenders: Sequence[str], threads: int, **arguments: Any) -> dict[str, int]:
    """Return the peak memory of two training steps, by contender, each in a process of its own.

    Parameters
    ----------
    problem : str
        One of `PROBLEMS`, to be called with ``arguments``, which JSON can hold.
    contenders : sequence of str
    threads : int
    """
    return {
        name: peak_bytes_of(
            "npbert.bench.training:run_steps",
            problem=problem,
            contender=name,
            threads=threads,
            arguments=arguments,
        )
        for name in contenders
    }


def run_steps(problem: str, contender: str, threads: int, arguments: dict[str, Any]) -> None:
    """Take some training steps, for the memory of them."""
    made = PROBLEMS[problem](**arguments)
    with threads_of_numpy(threads):
        if contender.startswith("npbert "):
            step = _step(made, contender.removeprefix("npbert "))
        else:
            step = next(peer.build(made, threads) for peer in PEERS if peer.name == contender)
        for _ in range(STEPS_FOR_MEMORY):
            step()


def _step(problem: Problem, backend: str) -> Step:
    bert = Bert(problem.config, problem.params, task=problem.task, backend=backend)
    return lambda: bert.loss_and_grads(**problem.batch)
