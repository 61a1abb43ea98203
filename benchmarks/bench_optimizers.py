"""What a step of the optimisers and of clipping costs, beside torch's.

    python benchmarks/bench_optimizers.py [--only NAME] [--threads 2] [--rounds 20] [--json]

The parameters are those of a BERT of 4 layers by 256 with a vocabulary of 30,522, for pre-training: 78 arrays
of 11.3 million elements, in float32. Contenders take turns (`npbert.bench.contest`); before that, what each
makes of the parameters in two steps is compared with npbert's in float64. torch's are the fastest it has for
a processor: "fused", one loop for all that is done to an element, and "foreach". The floor is what the memory
of the machine allows for: three arrays as large as all parameters read and written, and a fourth one read.

Times are medians with the 10th and the 90th percentile, in milliseconds. torch is only needed for its rows.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from npbert.bench.contest import Contender, Outcome, contest, ratios, summarize
from npbert.config import BertConfig
from npbert.cpu.workers import share_out, usable_cpus, workers
from npbert.params import init_params
from npbert.training.clipping import clip_by_global_norm
from npbert.training.optimizers import OPTIMIZERS

LEARNING_RATE = 1e-3
MAX_NORM = 1.0
CONFIG = BertConfig(
    hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024, vocab_size=30_522
)
# Of parameters up to 1, two roundings of float32 are lost in each of two steps, in which they move by 2e-3.
TOLERANCE = 3e-7
# Of gradients up to 2e-3. torch adds the squares up in float32: its norm is off by 1.5e-4 of itself.
CLIPPING_TOLERANCE = 1e-6


def make_problem(dtype: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return parameters and gradients, of a norm of 3.4."""
    params = init_params(CONFIG, "pretraining", seed=0, dtype=dtype)
    rng = np.random.default_rng(1)
    grads = {name: (1e-3 * rng.standard_normal(p.shape)).astype(dtype) for name, p in params.items()}
    return params, grads


def results_in_float64(name: str) -> dict[str, Any]:
    """Return the parameters after two steps of one of npbert's optimisers."""
    params, _ = make_problem(np.float64)
    _, grads = make_problem(np.float32)
    optimizer = OPTIMIZERS[name](params)
    for _ in range(2):
        optimizer.step({key: grad.astype(np.float64) for key, grad in grads.items()}, LEARNING_RATE)
    return params


def differences(found: dict[str, Any], expected: dict[str, Any], tolerance: float) -> str:
    """Say where two sets of arrays differ; empty if they do not."""
    for name, value in found.items():
        worst = float(np.max(np.abs(value - expected[name]), initial=0.0))
        if not worst <= tolerance:
            return f"{name} is off by {worst:.2g}"
    return ""


def npberts(name: str, expected: dict[str, Any]) -> Contender:
    """Return a contender: a step of one of npbert's optimisers."""
    params, grads = make_problem(np.float32)
    optimizer = OPTIMIZERS[name](params, share_out=share_out)

    def run() -> dict[str, Any]:
        optimizer.step(grads, LEARNING_RATE)
        return params

    run()  # the result that is checked is that of the second step
    return Contender(f"npbert {name}", run, lambda found: differences(found, expected, TOLERANCE))


def torchs(name: str, kind: str, expected: dict[str, Any], threads: int) -> Contender:
    """Return a contender: a step of one of torch's optimisers, in one of its implementations."""
    import torch

    from npbert.training.optimizers import decays_by_default

    torch.set_num_threads(threads)
    params, grads = make_problem(np.float32)
    tensors = {key: torch.from_numpy(value) for key, value in params.items()}
    for key, tensor in tensors.items():
        tensor.grad = torch.from_numpy(grads[key])
    groups = [
        {
            "params": [t for key, t in tensors.items() if decays_by_default(key, params[key])],
            "weight_decay": 0.01,
        },
        {
            "params": [t for key, t in tensors.items() if not decays_by_default(key, params[key])],
            "weight_decay": 0.0,
        },
    ]
    options: dict[str, Any] = {"lr": LEARNING_RATE, kind: True}
    optimizer = (
        torch.optim.AdamW(groups, **options)
        if name == "adamw"
        else torch.optim.SGD(groups, momentum=0.9, **options)
    )

    def run() -> dict[str, Any]:
        optimizer.step()
        return params

    run()
    return Contender(f"torch {name} {kind}", run, lambda found: differences(found, expected, TOLERANCE))


def clippers(threads: int, with_torch: bool) -> list[Contender]:
    """Return the contenders of clipping; the gradients are made too large again before each measurement."""
    _, grads = make_problem(np.float32)
    _, expected = make_problem(np.float64)
    clip_by_global_norm(expected, MAX_NORM)

    def contender(name: str, own: dict[str, Any], clip: Callable[[], object]) -> Contender:
        def before() -> None:
            for key, value in own.items():
                value[...] = grads[key]

        def run() -> dict[str, Any]:
            clip()
            return own

        return Contender(name, run, lambda found: differences(found, expected, CLIPPING_TOLERANCE), before)

    own = {key: grad.copy() for key, grad in grads.items()}
    contenders = [contender("npbert clipping", own, lambda: clip_by_global_norm(own, MAX_NORM, share_out))]
    if with_torch:
        import torch

        torch.set_num_threads(threads)
        theirs = {key: grad.copy() for key, grad in grads.items()}
        tensors = []
        for value in theirs.values():
            tensors.append(torch.from_numpy(value).requires_grad_())
            tensors[-1].grad = torch.from_numpy(value)
        contenders.append(
            contender("torch clipping", theirs, lambda: torch.nn.utils.clip_grad_norm_(tensors, MAX_NORM))
        )
    return contenders


def floor() -> Contender:
    """Return what only goes through memory, as a step of Adam has to."""
    size = sum(value.size for value in make_problem(np.float32)[0].values())
    arrays = [np.zeros(size, np.float32) for _ in range(4)]
    block = 1 << 17

    def work(start: int) -> None:
        *written, read = (array[start : start + block] for array in arrays)
        for array in written:
            array += read

    return Contender("floor: memory", lambda: share_out(work, range(0, size, block)))


def main() -> int:
    """Run the command; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=["adamw", "bert_adam", "lamb", "sgd", "clipping"])
    parser.add_argument("--threads", type=int, default=usable_cpus())
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    try:
        import torch  # noqa: F401

        with_torch = True
    except ImportError:
        with_torch = False
        print("torch is not installed: its rows are left out", file=sys.stderr)

    outcomes: list[Outcome] = []
    with workers(options.threads):
        for name in [options.only] if options.only else [*OPTIMIZERS, "clipping"]:
            if name == "clipping":
                contenders = clippers(options.threads, with_torch)
            else:
                expected = results_in_float64(name)
                contenders = [npberts(name, expected)]
                if with_torch and name in ("adamw", "sgd"):
                    contenders += [
                        torchs(name, kind, expected, options.threads) for kind in ("fused", "foreach")
                    ]
                if name == "adamw":
                    contenders.append(floor())
            found = contest(contenders, options.rounds)
            outcomes += found
            if not options.json:
                show(found)
    if options.json:
        print(json.dumps([outcome._asdict() for outcome in outcomes], indent=1))
    return 1 if any(outcome.failure for outcome in outcomes) else 0


def show(outcomes: list[Outcome]) -> None:
    """Print the rows of one contest."""
    for outcome in outcomes:
        if outcome.failure:
            print(f"{outcome.name:24} {outcome.failure}")
            continue
        median, p10, p90 = (1e3 * value for value in summarize(outcome.seconds))
        ratio = ratios(outcome, outcomes[0])
        beside = (
            f"{ratio.median:6.2f} times {outcomes[0].name}" if ratio and outcome is not outcomes[0] else ""
        )
        print(f"{outcome.name:24} {median:7.1f} ms  ({p10:.1f} to {p90:.1f})  {beside}".rstrip(), flush=True)


if __name__ == "__main__":
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.exit(main())
