"""Where the time of `encode` goes, and other designs of its parts: ``python benchmarks/designs.py``.

Three tables, each of medians, in turns:

- the parts of an encoder layer, of texts in bulk (on one thread) and of single texts (latency);
- the products of all layers for 16 and 128 tokens, in four designs, on one thread and on one for each core;
- GELU with its bias in five designs, one thread; one of them is numexpr's, if it is installed.

MiniLM's sizes and random weights: no time depends on them. Settings of OpenBLAS are taken out of the
environment.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from importlib.util import find_spec
from unittest import mock

import numpy as np

from npbert import BertConfig, init_params
from npbert.bench.machine import disturbing_settings
from npbert.cpu import column_layer, gelu, packed
from npbert.cpu.workers import row_blocks, scratch, single_threaded_blas, workers
from npbert.ops import gelu_forward
from npbert.params import subset
from npbert.pooling import PoolingSettings

CONFIG = BertConfig(
    vocab_size=30_522,
    hidden_size=384,
    num_hidden_layers=6,
    num_attention_heads=12,
    intermediate_size=1536,
)
ROUNDS = 9
BULK = [256, 200, 150, 130, 120, 110, 100, 90, 80, 60, 40, 30] * 4  # tokens of each text

Work = Callable[[], object]


def main() -> None:
    """Print the three tables."""
    disturbing = disturbing_settings(os.environ)
    if disturbing:
        environment = {name: value for name, value in os.environ.items() if name not in disturbing}
        os.execve(sys.executable, [sys.executable, __file__], environment)
    profile()
    products_of_few_columns()
    designs_of_gelu()


# --- where the time goes ----------------------------------------------------------------------------------


def profile() -> None:
    """Print the share of each part of the encoder."""
    print("encode: ms of each part")
    print(f"{'':<24}{'products':>10}{'attention':>11}{'GELU':>8}{'layernorm':>11}{'rest':>8}{'all':>9}")
    for name, lengths, threads in (
        (f"{len(BULK)} texts, one thread", BULK, 1),
        ("1 text, 16 tokens", [16], None),
        ("1 text, 128 tokens", [128], None),
    ):
        parts = median_parts(lengths, threads)
        rest = parts["all"] - sum(parts[part] for part in ("products", "attention", "GELU", "layernorm"))
        print(
            f"{name:<24}{parts['products']:>10.2f}{parts['attention']:>11.2f}{parts['GELU']:>8.2f}"
            f"{parts['layernorm']:>11.2f}{rest:>8.2f}{parts['all']:>9.2f}"
        )
    print()


def median_parts(lengths: list[int], threads: int | None) -> dict[str, float]:
    """Return the median milliseconds of each part of encoding texts of these lengths."""
    params = init_params(CONFIG, "encoder", seed=0)
    rng = np.random.default_rng(0)
    rows = [rng.integers(1000, 30_000, length).tolist() for length in lengths]
    runs = []
    for _ in range(ROUNDS):
        seconds = {"products": 0.0, "attention": 0.0, "GELU": 0.0, "layernorm": 0.0}

        def timed(part: str, function: Callable, seconds: dict[str, float] = seconds) -> Callable:
            def run(*args, **settings):
                start = time.perf_counter()
                result = function(*args, **settings)
                seconds[part] += time.perf_counter() - start
                return result

            return run

        class TimedNumPy:
            """NumPy, as `column_layer` sees it outside of attention."""

            matmul = staticmethod(timed("products", np.matmul))

            def __getattr__(self, name: str) -> object:
                return getattr(np, name)

        timed_attention = timed("attention", column_layer._attention)

        def attention(*args, whole: Callable = timed_attention):
            with mock.patch.object(column_layer, "np", np):
                return whole(*args)

        with ExitStack() as stack:
            stack.enter_context(mock.patch.object(column_layer, "np", TimedNumPy()))
            stack.enter_context(mock.patch.object(column_layer, "_attention", attention))
            stack.enter_context(
                mock.patch.object(column_layer, "_activate", timed("GELU", column_layer._activate))
            )
            layer_norm = timed("layernorm", column_layer.layer_norm)
            stack.enter_context(mock.patch.object(column_layer, "layer_norm", layer_norm))
            stack.enter_context(mock.patch.object(packed, "layer_norm", layer_norm))
            if threads is not None:
                stack.enter_context(workers(threads))
                stack.enter_context(single_threaded_blas())
            start = time.perf_counter()
            packed.encode_packed(params, CONFIG, rows, PoolingSettings("mean"), 4096, lambda done: None)
            seconds["all"] = time.perf_counter() - start
        runs.append(seconds)
    return {part: 1e3 * statistics.median(run[part] for run in runs[1:]) for part in runs[0]}


# --- products ---------------------------------------------------------------------------------------------


def products_of_few_columns() -> None:
    """Print how long the products of all layers take, for few tokens."""
    weights = [
        value
        for layer in range(CONFIG.num_hidden_layers)
        for value in subset(init_params(CONFIG, "encoder", seed=0), f"encoder.layer.{layer}.").values()
        if value.ndim == 2
    ]
    transposed = [np.ascontiguousarray(weight.T) for weight in weights]
    rng = np.random.default_rng(0)
    for tokens in (16, 128):
        x = {size: rng.standard_normal((tokens, size)).astype(np.float32) for size in (384, 1536)}
        x_columns = {size: np.ascontiguousarray(rows.T) for size, rows in x.items()}

        def by_rows(x=x):
            for weight in weights:
                x[weight.shape[1]] @ weight.T

        def by_rows_transposed_weights(x=x):
            for weight in transposed:
                x[weight.shape[0]] @ weight

        def by_columns(x=x_columns):
            for weight in weights:
                weight @ x[weight.shape[1]]

        def by_columns_in_pieces(x=x_columns, tokens=tokens):
            for weight in weights:
                inner = weight.shape[1]
                for rows in row_blocks(len(weight), max(8, 10**6 // (inner * tokens))):
                    weight[rows] @ x[inner]

        designs = {
            "x @ weight.T": by_rows,
            "x @ weight, of weights kept transposed": by_rows_transposed_weights,
            "weight @ x (npbert)": by_columns,
            "weight @ x, in pieces of 10^6 multiplications": by_columns_in_pieces,
        }
        print(f"products of all layers, {tokens} tokens: ms on one thread, and on all")
        one = medians(designs, around=single_threaded_blas)
        every = medians(designs)
        for name in designs:
            print(f"  {name:<50}{1e3 * one[name]:>8.2f}{1e3 * every[name]:>8.2f}")
        print()


# --- GELU -------------------------------------------------------------------------------------------------


def designs_of_gelu() -> None:
    """Print how long GELU takes, with its bias."""
    rng = np.random.default_rng(0)
    source = rng.normal(-0.5, 1.2, (1536, 1008)).astype(np.float32)
    bias = rng.standard_normal((1536, 1)).astype(np.float32)
    x = source.copy()
    slope = np.empty_like(x)

    def npberts():
        gelu.bias_gelu_in_place(x, bias, "erf")

    def with_slope():
        x.__iadd__(bias)
        gelu.write_gelu(x.reshape(-1), x.reshape(-1), slope.reshape(-1), "erf")

    def textbooks():
        gelu_forward(x + bias)

    designs = {
        "npbert, inference": npberts,
        "npbert, inference, polynomial by a product": lambda: gelu_by_product(x, bias),
        "npbert, training: with the slope, float64 tail": with_slope,
        "the textbook": textbooks,
    }
    if find_spec("numexpr"):
        designs["numexpr"] = numexpr_gelu(x, bias)
    print("GELU and bias, (1536, 1008) float32, one thread: ns an element")
    with workers(1):
        found = medians(designs, around=single_threaded_blas, before=lambda: np.copyto(x, source))
    for name, seconds in found.items():
        print(f"  {name:<50}{1e9 * seconds / x.size:>8.2f}")
    if not find_spec("numexpr"):
        print("  numexpr is not installed")


def gelu_by_product(x: np.ndarray, bias: np.ndarray) -> None:
    """Replace x by GELU(x + bias), with the polynomial's two halves from one product with powers of x²."""
    c = gelu.ERF_POLYNOMIAL[::-1]
    halves = np.array([c[:4], [0.0, *c[4:]]], np.float32)
    for rows in row_blocks(len(x), 32):
        part = x[rows]
        part += bias[rows]
        flat = part.reshape(-1)
        powers, sums = scratch("powers", (4, flat.size), x.dtype), scratch("sums", (2, flat.size), x.dtype)
        powers[0] = 1
        np.square(flat, out=powers[1])
        np.square(powers[1], out=powers[2])
        np.multiply(powers[1], powers[2], out=powers[3])
        np.matmul(halves, powers, out=sums)
        sums[1] *= powers[3]
        v = np.add(sums[0], sums[1], out=sums[0])
        v *= flat
        with np.errstate(over="ignore"):  # the limit is right
            np.exp2(v, out=v)
        v += 1
        flat /= v


def numexpr_gelu(x: np.ndarray, bias: np.ndarray) -> Work:
    """Return the same formula, compiled by numexpr, on one of its threads."""
    import numexpr

    numexpr.set_num_threads(1)
    polynomial = repr(gelu.ERF_POLYNOMIAL[0])
    for coefficient in gelu.ERF_POLYNOMIAL[1:]:
        polynomial = f"({polynomial} * s + {coefficient!r})"
    ln_2 = repr(float(np.log(2)))

    def run():
        biased = numexpr.evaluate("x + bias")
        square = numexpr.evaluate("biased * biased")
        names = {"x": biased, "s": square}
        formula = f"x / (1 + exp({ln_2} * x * {polynomial}))"
        numexpr.evaluate(formula, local_dict=names, out=x, casting="unsafe", truediv=True)

    return run


# --- what they share --------------------------------------------------------------------------------------


def medians(
    designs: dict[str, Work], around: Callable = ExitStack, before: Work = lambda: None
) -> dict[str, float]:
    """Return the median seconds of each, measured in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in designs}
    for _ in range(ROUNDS + 1):
        for name, work in designs.items():
            before()
            time.sleep(0.05)  # threads of BLAS that still wait for work would take a core
            with around():
                start = time.perf_counter()
                work()
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


if __name__ == "__main__":
    main()
