"""``npbert bench ops``: op by op, forward and backward, against PyTorch's eager ops."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from types import ModuleType
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npbert import ops
from npbert.backends import find_backend
from npbert.bench.comparison import FLOOR, Comparison
from npbert.bench.contest import Contender, contest
from npbert.bench.floor import Floor, Product
from npbert.bench.peers import Peer

Array = NDArray[Any]

BATCH, TOKENS, VOCABULARY = 32, 128, 30_522
MASKED: Final = 0.15
DROPOUT: Final = 0.1
EPSILON: Final = 1e-12
MIN_SECONDS: Final = 0.02
TOLERANCE: Final = 1e-4  # of the largest element of a result


class Size(NamedTuple):
    """A model's widths."""

    name: str
    hidden: int
    heads: int
    inner: int


SIZES: Final = (Size("MiniLM", 384, 12, 1536), Size("BERT-base", 768, 12, 3072))


class OpCase(NamedTuple):
    """An op with inputs.

    Attributes
    ----------
    name : str
        Under which peers have their own version.
    op : str
        Of `npbert.ops`: ``<op>_forward`` and ``<op>_backward``.
    args : tuple
        The forward's, float32.
    products : tuple of Product
        The matrix products of the forward; none: the op has no floor.
    """

    name: str
    op: str
    args: tuple[Any, ...]
    products: tuple[Product, ...] = ()


Make = Callable[[Size, np.random.Generator, int, int], OpCase]


def compare_ops(
    size: Size,
    names: Sequence[str],
    backends: Sequence[str],
    peers: Sequence[Peer],
    rounds: int,
    threads: int,
    batch: int = BATCH,
    tokens: int = TOKENS,
) -> Iterator[Comparison]:
    """Compare ops, each forward, then backward.

    Parameters
    ----------
    size : Size
    names : sequence of str
        Some of `CASES`.
    backends : sequence of str
        npbert's engines; the others are compared with the first.
    peers : sequence of Peer
    rounds, threads, batch, tokens : int
    """
    for name in names:
        case = CASES[name](size, np.random.default_rng(0), batch, tokens)
        y, cache = _forward(ops, case, _as_float64(case.args))
        dy = np.random.default_rng(1).standard_normal(np.shape(y)).astype(np.float32)[()]
        gradients = _backward(ops, case, _as_float64((dy,))[0], cache)
        cache = None
        engines = {f"npbert {backend}": find_backend(backend).ops for backend in backends}
        built = {peer.name: peer.build(case, dy, threads) for peer in peers}
        facts = {"op": name, "size": size.name, "batch": batch, "tokens": tokens}
        for direction, expected in (("forward", (y,)), ("backward", gradients)):
            contenders = [
                Contender(who, _engine_call(module, case, dy, direction), partial(_wrong, expected=expected))
                for who, module in engines.items()
            ]
            contenders += [
                Contender(who, calls[direction], partial(_wrong, expected=expected))
                for who, versions in built.items()
                for who, calls in _named(who, versions)
            ]
            floor = _floor(case, direction)
            if floor is not None:
                contenders.append(Contender(FLOOR, floor.run))
            yield Comparison(
                title=f"{name} {direction}, {size.name}",
                facts=facts | {"direction": direction},
                outcomes=tuple(contest(contenders, rounds, MIN_SECONDS)),
                base=contenders[0].name,
                flops=0 if floor is None else floor.flops,
            )


def _named(peer: str, versions: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for variant, calls in versions.items():
        yield (f"{peer}, {variant}" if variant else peer), calls


def _engine_call(module: ModuleType, case: OpCase, dy: Any, direction: str) -> Callable[[], tuple[Any, ...]]:
    if direction == "forward":
        return lambda: (_forward(module, case, case.args)[0],)
    _, cache = _forward(module, case, case.args)
    return lambda: _backward(module, case, dy, cache)


def _forward(module: ModuleType, case: OpCase, args: Sequence[Any]) -> tuple[Any, Any]:
    found: tuple[Any, Any] = getattr(module, f"{case.op}_forward")(*args)
    return found


def _backward(module: ModuleType, case: OpCase, dy: Any, cache: Any) -> tuple[Any, ...]:
    found = getattr(module, f"{case.op}_backward")(dy, cache)
    gradients = found if isinstance(found, tuple) else (found,)
    return tuple(gradient for gradient in gradients if gradient is not None)


def _wrong(found: Sequence[Any], expected: Sequence[Any]) -> str:
    """Return what is wrong with some results, "" for nothing."""
    if len(found) != len(expected):
        return f"wrong: {len(found)} results, not {len(expected)}"
    for number, (one, other) in enumerate(zip(found, expected, strict=True), start=1):
        array = np.asarray(one, dtype=np.float64)
        if array.shape != np.shape(other):
            return f"wrong: result {number} is of shape {array.shape}, not {np.shape(other)}"
        scale = np.abs(other).max() or 1.0
        error = np.abs(array - other).max() / scale
        if not error <= TOLERANCE:
            return f"wrong: result {number} is off by {error:.1e} of its largest element"
    return ""


def _floor(case: OpCase, direction: str) -> Floor | None:
    if not case.products:
        return None
    from npbert.bench.floor import with_gradients

    if direction == "forward":
        return Floor([case.products])
    return Floor([with_gradients(case.products)[len(case.products) :]])


def _as_float64(args: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(
        arg.astype(np.float64)
        if isinstance(arg, np.ndarray | np.generic) and arg.dtype == np.float32
        else arg
        for arg in args
    )


# --- the ops, with inputs as in a model -----------------------------------------------------------------


def _normal(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> Array:
    return rng.standard_normal(shape, dtype=np.float32) * np.float32(scale)


def _linear(columns: str, rows: str) -> Make:
    def make(size: Size, rng: np.random.Generator, batch: int, tokens: int) -> OpCase:
        inner, outer = getattr(size, rows), getattr(size, columns)
        args = (
            _normal(rng, batch, tokens, inner),
            _normal(rng, outer, inner, scale=0.02),
            _normal(rng, outer),
        )
        return OpCase("linear", "linear", args, (Product(batch * tokens, inner, outer),))

    return make


def _elementwise(name: str, width: str, op: str, *options: Any) -> Make:
    def make(size: Size, rng: np.random.Generator, batch: int, tokens: int) -> OpCase:
        return OpCase(name, op, (_normal(rng, batch, tokens, getattr(size, width)), *options))

    return make


def _layernorm(size: Size, rng: np.random.Generator, batch: int, tokens: int) -> OpCase:
    x = _normal(rng, batch, tokens, size.hidden)
    return OpCase(
        "layernorm", "layernorm", (x, _normal(rng, size.hidden), _normal(rng, size.hidden), EPSILON)
    )


def _attention(size: Size, rng: np.random.Generator, batch: int, tokens: int) -> OpCase:
    width = size.hidden // size.heads
    # Views of (B, T, N, H), as a model's are.
    q, k, v = (_normal(rng, batch, tokens, size.heads, width).swapaxes(1, 2) for _ in range(3))
    lengths = rng.integers(max(1, tokens // 2), tokens + 1, batch)
    key_mask = np.arange(tokens) < lengths[:, None]
    stack = batch * size.heads
    products = (Product(tokens, width, tokens, "NT", stack), Product(tokens, tokens, width, "NN", stack))
    return OpCase("softmax attention", "softmax_attention", (q, k, v, None, key_mask), products)


def _dropout(size: Size, rng: np.random.Generator, batch: int, tokens: int) -> OpCase:
    keep = rng.random((batch, tokens, size.hidden), dtype=np.float32) >= DROPOUT
    return OpCase("dropout", "dropout", (_normal(rng, batch, tokens, size.hidden), keep, DROPOUT))


def _embedding(size: Size, rng: np.random.Generator, batch: int, tokens: int) -> OpCase:
    ids = rng.integers(1, VOCABULARY, (batch, tokens))
    positions = np.broadcast_to(np.arange(tokens), (batch, tokens))
    types = (positions >= tokens // 2).astype(np.int64)
    tables = (_normal(rng, rows, size.hidden) for rows in (VOCABULARY, max(512, tokens), 2))
    return OpCase("embedding", "embedding", (ids, None, positions, types, *tables, 0))


def _cross_entropy(size: Size, rng: np.random.Generator, batch: int, tokens: int) -> OpCase:
    rows = max(1, round(MASKED * batch * tokens))
    args = (_normal(rng, rows, VOCABULARY), rng.integers(0, VOCABULARY, rows))
    return OpCase("cross-entropy", "cross_entropy", args)


def _mean_pooling(size: Size, rng: np.random.Generator, batch: int, tokens: int) -> OpCase:
    mask = np.arange(tokens) < rng.integers(1, tokens + 1, batch)[:, None]
    return OpCase("mean pooling", "mean_pooling", (_normal(rng, batch, tokens, size.hidden), mask))


def _l2_normalize(size: Size, rng: np.random.Generator, batch: int, tokens: int) -> OpCase:
    return OpCase("L2 normalisation", "l2_normalize", (_normal(rng, batch * tokens, size.hidden), EPSILON))


CASES: Final[dict[str, Make]] = {
    "linear D to D": _linear("hidden", "hidden"),
    "linear D to F": _linear("inner", "hidden"),
    "linear F to D": _linear("hidden", "inner"),
    "gelu erf": _elementwise("gelu erf", "inner", "gelu", "erf"),
    "gelu tanh": _elementwise("gelu tanh", "inner", "gelu", "tanh"),
    "relu": _elementwise("relu", "inner", "activation", "relu"),
    "silu": _elementwise("silu", "inner", "activation", "silu"),
    "tanh": _elementwise("tanh", "hidden", "activation", "tanh"),
    "layernorm": _layernorm,
    "softmax attention": _attention,
    "dropout": _dropout,
    "embedding": _embedding,
    "cross-entropy": _cross_entropy,
    "mean pooling": _mean_pooling,
    "L2 normalisation": _l2_normalize,
}
