"""What is checked and timed: every fused op at the sizes of real models, and the ops that it stands for."""

from collections.abc import Callable, Collection, Iterator
from typing import Any, Final, NamedTuple

import numpy as np

from npbert import cuda, ops
from npbert.cuda import softmax_attention_mma, softmax_attention_scalar
from npbert.cuda.attention_options import AttentionOptions, Sequences
from npbert.cuda.facts.devices import Unit
from npbert.cuda.facts.problems import Size, problems
from npbert.ops.array_module import Array, array_module

SIZES: Final = {
    "MiniLM, T=128": Size(texts=32, tokens=128, heads=12, width=384, feed_forward=1536),
    "BERT-base, T=128": Size(texts=32, tokens=128, heads=12, width=768, feed_forward=3072),
    "BERT-base, T=512": Size(texts=32, tokens=512, heads=12, width=768, feed_forward=3072),
}
DTYPES: Final = ("float32", "float16")
# What is timed: the functions of each op.
FUNCTIONS: Final = (
    "embedding_forward",
    "embedding_backward",
    "residual_layernorm_forward",
    "residual_layernorm_backward",
    "bias_gelu_forward",
    "bias_gelu_backward",
    "cross_entropy_forward",
    "cross_entropy_backward",
    "cross_entropy_in_place",
    "attention_forward",
    "attention_backward",
)
EPS: Final = 1e-12
IGNORED: Final = -100

Forward = Callable[..., tuple[Any, Any]]
Backward = Callable[[Any, Any], Any]


class Pair(NamedTuple):
    """A forward, which returns the value and a cache, and its backward, which takes dy and the cache."""

    forward: Forward
    backward: Backward


class Work(NamedTuple):
    """What a call cannot do without: see `npbert.cuda.facts.problems`."""

    shape: str
    unit: Unit
    flops: int
    minimum_bytes: int


class Case(NamedTuple):
    """A fused op at some arguments.

    Attributes
    ----------
    op : str
        Such as "bias_gelu".
    variant : str
        Such as "float16, erf".
    arguments : tuple
        Of the forwards: NumPy arrays, and anything else.
    dy : array
        Of the backwards.
    rows : tuple of int
        Positions of the arguments whose first axis counts rows (or texts) that do not touch each other. The
        gradients of all others are sums over these.
    rows_at_once : int
        How many of them the oracle takes at a time.
    gradients : tuple of int or None
        For each gradient, the position of its argument; None for a gradient that is None.
    fused, textbook : Pair
    work : dict of str to Work
        By function: the forward and the backward, or the one that does what both do.
    wide_textbook : bool
        Whether the textbook's op takes no float16, and is given float32 in its place.
    layout : callable
        Returns an array as it lies in memory where a model calls the fused op.
    """

    op: str
    variant: str
    arguments: tuple[Any, ...]
    dy: Array
    rows: tuple[int, ...]
    rows_at_once: int
    gradients: tuple[int | None, ...]
    fused: Pair
    textbook: Pair
    work: dict[str, Work]
    wide_textbook: bool = False
    layout: Callable[[Array], Array] = lambda x: x


def cases(
    size: Size, dtype: str, functions: Collection[str] = FUNCTIONS, with_tensor_cores: bool = True
) -> Iterator[Case]:
    """Make the cases of one size and dtype.

    Parameters
    ----------
    size : Size
    dtype : "float32" or "float16"
    functions : collection of str
        Some of `FUNCTIONS`. The arrays of ops that have none of these are not made.
    with_tensor_cores : bool
        Whether there are cases for the kernels that need them.

    Yields
    ------
    Case
    """
    make = _Maker(size, dtype, functions)
    if make.has("embedding"):
        yield _embedding(make)
    if make.has("residual_layernorm"):
        yield _layernorm(make)
    if make.has("bias_gelu"):
        yield from (_gelu(make, form) for form in ("erf", "tanh"))
    if make.has("cross_entropy"):
        yield _cross_entropy(make)
    if make.has("cross_entropy_in_place"):
        yield _cross_entropy_in_place(make)
    if make.has("attention"):
        yield _attention(make, softmax_attention_scalar, "float32")
        if dtype == "float16" and with_tensor_cores:
            yield _attention(make, softmax_attention_mma, "tensor")


class _Maker:
    """Draws arrays, and knows how much work there is."""

    def __init__(self, size: Size, dtype: str, functions: Collection[str]) -> None:
        self.size = size
        self.dtype = dtype
        self._functions = functions
        self._rng = np.random.default_rng(0)
        self._work = {
            (problem.op, problem.variant, problem.unit): Work(
                problem.shape, problem.unit, problem.flops, problem.minimum_bytes
            )
            for problem in problems(size, head_widths=(self.head_width,))
        }

    @property
    def head_width(self) -> int:
        return self.size.width // self.size.heads

    def has(self, op: str) -> bool:
        """Whether one of the op's functions is asked for."""
        return bool(self._functions_of(op))

    def floats(self, *shape: int, scale: float = 1.0) -> Array:
        return (scale * self._rng.standard_normal(shape, np.float32)).astype(self.dtype)

    def integers(self, limit: int, *shape: int) -> Array:
        return self._rng.integers(0, limit, shape)

    def work(self, op: str, variant: str = "", unit: Unit = "float32") -> dict[str, Work]:
        """Return the work of those of an op's functions that are asked for."""
        variant = f"{self.dtype} {variant}".strip()
        return {function: self._work[function, variant, unit] for function in self._functions_of(op)}

    def _functions_of(self, op: str) -> list[str]:
        names = (op, f"{op}_forward", f"{op}_backward")
        return [name for name in names if name in self._functions]


def _embedding(make: _Maker) -> Case:
    size = make.size
    ids = [make.integers(limit, size.texts, size.tokens) for limit in (size.words, size.tokens, 2)]
    tables = [make.floats(rows, size.width) for rows in (size.words, size.tokens, 2)]
    return Case(
        "embedding",
        make.dtype,
        (ids[0], None, ids[1], ids[2], *tables, None),
        make.floats(size.texts, size.tokens, size.width),
        rows=(0, 2, 3),
        rows_at_once=8,
        gradients=(None, 4, 5, 6),
        fused=Pair(cuda.embedding_forward, cuda.embedding_backward),
        textbook=Pair(ops.embedding_forward, ops.embedding_backward),
        work=make.work("embedding"),
    )


def _layernorm(make: _Maker) -> Case:
    size = make.size
    shape = (size.texts * size.tokens, size.width)
    return Case(
        "residual_layernorm",
        make.dtype,
        (make.floats(*shape), make.floats(*shape), make.floats(size.width), make.floats(size.width), EPS),
        make.floats(*shape),
        rows=(0, 1),
        rows_at_once=1024,
        gradients=(0, 2, 3),  # that of x + residual is the gradient of either
        fused=Pair(cuda.residual_layernorm_forward, cuda.residual_layernorm_backward),
        textbook=Pair(
            lambda x, residual, *rest: ops.layernorm_forward(x + residual, *rest), ops.layernorm_backward
        ),
        work=make.work("residual_layernorm"),
    )


def _gelu(make: _Maker, form: str) -> Case:
    size = make.size
    shape = (size.texts * size.tokens, size.feed_forward)

    def textbook_backward(dy: Array, cache: Any) -> tuple[Array, Array]:
        dx = ops.gelu_backward(dy, cache)
        return dx, dx.sum(axis=0)

    return Case(
        "bias_gelu",
        f"{make.dtype}, {form}",
        (make.floats(*shape, scale=2.0), make.floats(size.feed_forward), form),
        make.floats(*shape),
        rows=(0,),
        rows_at_once=512,
        gradients=(0, 1),
        fused=Pair(cuda.bias_gelu_forward, cuda.bias_gelu_backward),
        textbook=Pair(lambda x, bias, form: ops.gelu_forward(x + bias, form), textbook_backward),
        work=make.work("bias_gelu", form),
        wide_textbook=make.dtype == "float16",
    )


def _cross_entropy_arguments(make: _Maker) -> tuple[Any, ...]:
    """The loss is summed, not averaged: then a part of the rows has a part of the loss."""
    rows, classes = make.size.labelled, make.size.classes
    labels = make.integers(classes, rows)
    labels[::7] = IGNORED
    return make.floats(rows, classes, scale=3.0), labels, IGNORED, "sum"


def _cross_entropy(make: _Maker) -> Case:
    return Case(
        "cross_entropy",
        make.dtype,
        _cross_entropy_arguments(make),
        np.asarray(0.7, make.dtype),
        rows=(0, 1),
        rows_at_once=128,
        gradients=(0,),
        fused=Pair(cuda.cross_entropy_forward, cuda.cross_entropy_backward),
        textbook=Pair(ops.cross_entropy_forward, ops.cross_entropy_backward),
        work=make.work("cross_entropy"),
    )


def _cross_entropy_in_place(make: _Maker) -> Case:
    """Forward and backward in one. The next call takes the gradient for logits, which are as good as any."""

    def textbook_forward(*arguments: Any) -> tuple[Array, Array]:
        loss, cache = ops.cross_entropy_forward(*arguments)
        return loss, ops.cross_entropy_backward(1.0, cache)

    def backward(dloss: Array, dlogits: Array) -> Array:
        return dlogits

    return Case(
        "cross_entropy_in_place",
        make.dtype,
        _cross_entropy_arguments(make),
        np.asarray(1.0, make.dtype),
        rows=(0, 1),
        rows_at_once=128,
        gradients=(0,),
        fused=Pair(cuda.cross_entropy_in_place, backward),
        textbook=Pair(textbook_forward, backward),
        work=make.work("cross_entropy_in_place"),
    )


def _attention(make: _Maker, kernels: Any, unit: Unit) -> Case:
    """Attention without a mask."""
    size, head_width = make.size, make.head_width
    shape = (size.texts, size.heads, size.tokens, head_width)

    def layout(x: Array) -> Array:
        """Return (B, N, T, H) as a view of (B, T, N, H), which is how the heads of a projection lie."""
        return array_module(x).ascontiguousarray(x.swapaxes(1, 2)).swapaxes(1, 2)

    def rows(x: Array) -> Array:
        """(B, N, T, H) -> (B * T, N, H), without a copy from that layout"""
        return x.swapaxes(1, 2).reshape(-1, size.heads, head_width)

    def heads(x: Array) -> Array:
        """(B * T, N, H) -> (B, N, T, H)"""
        return x.reshape(-1, size.tokens, size.heads, head_width).swapaxes(1, 2)

    def forward(q: Array, k: Array, v: Array) -> tuple[Array, Any]:
        sequences, options = Sequences(len(q), size.tokens, size.tokens), AttentionOptions()
        q, k, v = rows(q), rows(k), rows(v)
        context, lse = kernels.attention_forward(q, k, v, sequences, options)
        return heads(context), (q, k, v, context, lse, sequences, options)

    def backward(dcontext: Array, cache: Any) -> tuple[Array, Array, Array]:
        dq, dk, dv, _ = kernels.attention_backward(rows(dcontext), *cache)
        return heads(dq), heads(dk), heads(dv)

    return Case(
        "attention",
        f"{make.dtype}, {'tensor cores' if unit == 'tensor' else 'scalar'}",
        tuple(make.floats(*shape) for _ in range(3)),
        make.floats(*shape),
        rows=(0, 1, 2),
        rows_at_once=1,
        gradients=(0, 1, 2),
        fused=Pair(forward, backward),
        textbook=Pair(
            ops.softmax_attention_forward, lambda dy, cache: ops.softmax_attention_backward(dy, cache)[:3]
        ),
        work=make.work("attention", f"H={head_width}", unit),
        layout=layout,
    )
