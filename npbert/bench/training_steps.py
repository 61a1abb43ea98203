"""``npbert bench training --whole-step``: all that training does with a batch.

Forward, backward, clipping of the gradients to a global norm of 1, and a step of AdamW; without dropout, so
that results can be compared, and with it, as it is used.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from npbert.bench.comparison import FLOOR, Comparison
from npbert.bench.contest import Contender, contest
from npbert.bench.machine import threads_of_numpy
from npbert.bench.memory import peak_bytes_of
from npbert.bench.peers import Peer
from npbert.bench.peers.torch_steps import PEERS
from npbert.bench.training import PROBLEMS, STEPS_FOR_MEMORY, TOLERANCE, Problem, training_floor
from npbert.bert import Bert
from npbert.training.adamw import AdamW
from npbert.training.clipping import clip_by_global_norm
from npbert.training.communicator import Alone
from npbert.training.loop import TrainingSettings, take_step

Array = NDArray[Any]
LossAndParams = tuple[float, Mapping[str, Array]]
Step = Callable[[], LossAndParams]

LEARNING_RATE: Final = 1e-4
WEIGHT_DECAY: Final = 0.01
MAX_NORM: Final = 1.0
# Of the length of the first step. AdamW makes steps of about the learning rate even of gradients that are
# little more than round-off, such as those of words that do not occur.
STEP_TOLERANCE: Final = 1e-2
DROPOUT_TOLERANCE: Final = 0.02  # of the loss: what dropout may change of that of freshly drawn weights


def compare_steps(
    problem: Problem,
    backends: Sequence[str],
    peers: Sequence[Peer],
    rounds: int,
    threads: int,
    dropout: bool,
    peaks: Mapping[str, int] | None = None,
) -> Comparison:
    """Compare the time of a whole step.

    Parameters
    ----------
    problem : Problem
    backends : sequence of str
        npbert's engines; the others are compared with the first.
    peers : sequence of Peer
        Of `npbert.bench.peers.torch_steps`.
    rounds, threads : int
    dropout : bool
        Whether to train with dropout, at the rates of the configuration.
    peaks : mapping of str to int, optional
        From `peak_memory`.
    """
    expected = first_step(problem)
    check = partial(wrong_step, expected=expected, start=problem.params, dropout=dropout)
    contenders = [Contender(f"npbert {name}", whole_step(problem, name, dropout), check) for name in backends]
    contenders += [Contender(peer.name, peer.build(problem, threads, dropout), check) for peer in peers]
    floor = training_floor(problem)
    contenders.append(Contender(FLOOR, floor.run))
    lengths = problem.batch["attention_mask"].sum(axis=1)
    rate = problem.config.hidden_dropout_prob
    return Comparison(
        title=f"a step of AdamW, {f'dropout {rate}' if dropout else 'no dropout'}: {problem.title}",
        facts={
            "batch": len(lengths),
            "tokens": int(lengths.sum()),
            "layers": problem.config.num_hidden_layers,
            "hidden_size": problem.config.hidden_size,
            "dropout": dropout,
        },
        outcomes=tuple(contest(contenders, rounds)),
        base=contenders[0].name,
        tokens=int(lengths.sum()),
        flops=floor.flops,
        peak_bytes=dict(peaks or {}),
    )


def whole_step(problem: Problem, backend: str, dropout: bool) -> Step:
    """Return a function that takes npbert's next step, and returns its loss and the parameters after it."""
    copies = {name: value.copy() for name, value in problem.params.items()}
    bert = Bert(problem.config, copies, task=problem.task, backend=backend)
    optimizer = AdamW(bert.params, weight_decay=WEIGHT_DECAY, share_out=bert.share_out)
    settings = TrainingSettings(steps=1, max_grad_norm=MAX_NORM, dropout=dropout)

    def step() -> LossAndParams:
        number = optimizer.steps
        taken = take_step(bert, [problem.batch], optimizer, LEARNING_RATE, number, settings, Alone())
        return taken.loss, bert.params

    return step


def first_step(problem: Problem) -> LossAndParams:
    """Return the loss of the first step without dropout, and the parameters after it, in float64."""
    textbook = Bert(problem.config, problem.params, task=problem.task, dtype=np.float64, backend="reference")
    loss, grads = textbook.loss_and_grads(**problem.batch)
    clip_by_global_norm(grads, MAX_NORM)
    AdamW(textbook.params, weight_decay=WEIGHT_DECAY).step(grads, LEARNING_RATE)
    return float(loss), textbook.params


def wrong_step(
    found: LossAndParams, expected: LossAndParams, start: Mapping[str, Array], dropout: bool
) -> str:
    """Return what is wrong with a first step, "" for nothing; with dropout, only its loss is looked at."""
    (loss, params), (expected_loss, expected_params) = found, expected
    if not abs(loss - expected_loss) <= (DROPOUT_TOLERANCE if dropout else TOLERANCE) * expected_loss:
        return f"wrong: the loss is {loss:.6g}, not {expected_loss:.6g}"
    if dropout:
        return ""
    if missing := sorted(expected_params.keys() - params.keys()):
        return f"wrong: no parameter {missing[0]}"
    off = [np.linalg.norm(params[name] - after) for name, after in expected_params.items()]
    length = [np.linalg.norm(after - start[name]) for name, after in expected_params.items()]
    error = float(np.linalg.norm(off) / np.linalg.norm(length))
    return "" if error <= STEP_TOLERANCE else f"wrong: the step is off by {error:.1e} of its length"


def peak_memory(
    problem: str, contenders: Sequence[str], threads: int, dropout: bool, **arguments: Any
) -> dict[str, int]:
    """Return the peak memory of two whole steps, by contender, each in a process of its own.

    Parameters
    ----------
    problem : str
        One of `npbert.bench.training.PROBLEMS`, to be called with ``arguments``, which JSON can hold.
    contenders : sequence of str
    threads : int
    dropout : bool
    """
    return {
        name: peak_bytes_of(
            "npbert.bench.training_steps:run_steps",
            problem=problem,
            contender=name,
            threads=threads,
            dropout=dropout,
            arguments=arguments,
        )
        for name in contenders
    }


def run_steps(problem: str, contender: str, threads: int, dropout: bool, arguments: dict[str, Any]) -> None:
    """Take some whole steps, for the memory of them."""
    made = PROBLEMS[problem](**arguments)
    with threads_of_numpy(threads):
        if contender.startswith("npbert "):
            step = whole_step(made, contender.removeprefix("npbert "), dropout)
        else:
            step = next(peer.build(made, threads, dropout) for peer in PEERS if peer.name == contender)
        for _ in range(STEPS_FOR_MEMORY):
            step()
