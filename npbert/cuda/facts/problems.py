"""What the kernels are for: ops at BERT-base's sizes, with the arithmetic and the traffic they cannot avoid.

How an op launches its kernels is not written down here a second time: the op is called, and its launches are
looked at in place of being run (`npbert.cuda.emulator.intercepted`). Its arrays are zeros that no one reads,
so that even large ones cost nothing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from npbert.cuda import (
    cross_entropy,
    embedding,
    emulator,
    gelu,
    layernorm,
    softmax_attention_mma,
    softmax_attention_scalar,
)
from npbert.cuda.attention_options import AttentionOptions, Sequences
from npbert.cuda.emulator import Launch
from npbert.cuda.facts.devices import Unit
from npbert.ops.array_module import Array

DTYPES: Final = ("float64", "float32", "float16")
HEAD_WIDTHS: Final = (32, 64, 128)

OnLaunch = Callable[[Launch], None]


class Size(NamedTuple):
    """How large the model and its batch are."""

    texts: int = 32  # B
    tokens: int = 512  # T
    heads: int = 12  # N
    width: int = 768  # D
    feed_forward: int = 3072  # F
    words: int = 30522  # V, rows of the table of words
    classes: int = 30522  # V as well: class scores in a row
    labelled: int = 1024  # rows of class scores


REFERENCE: Final = Size()
# What an emulator can trace; a few tiles of every kernel, with rows as wide as in the model.
SMALL: Final = Size(texts=1, tokens=128, heads=1, words=500, labelled=4)


class Problem(NamedTuple):
    """A call of one op.

    Attributes
    ----------
    op : str
    variant : str
        What its kernels were compiled for: "float16", "float16 H=64".
    shape : str
        Such as "B=32 N=12 T=512 H=64".
    unit : {"float64", "float32", "tensor"}
        What does the arithmetic.
    flops : int
        Floating-point operations that the formulas need; an exp or an erf counts as one.
    minimum_bytes : int
        What has to be read and written: inputs and outputs, once.
    launches : tuple of Launch
        What the op asked for; none for what is there to compare with, whose op is "OP, unfused".
    launched_bytes : int
        The same for its kernels: of each, all arrays, once. More than the minimum where a kernel reads what
        another one has read or written.
    """

    op: str
    variant: str
    shape: str
    unit: Unit
    flops: int
    minimum_bytes: int
    launches: tuple[Launch, ...]
    launched_bytes: int


class Maker:
    """Makes arrays, calls ops and keeps what they launch."""

    def __init__(self, size: Size, dtype: str, on_launch: OnLaunch | None = None) -> None:
        self.size = size
        self.dtype = np.dtype(dtype)
        self.on_launch = on_launch
        self._rng = np.random.default_rng(0)

    @property
    def unit(self) -> Unit:
        """What does the arithmetic of kernels without tensor cores: float16 is computed in float32."""
        return "float64" if self.dtype == np.float64 else "float32"

    def floats(self, *shape: int) -> Array:
        """Return an array: random numbers if launches are run, else zeros."""
        if self.on_launch is None:
            return np.zeros(shape, self.dtype)
        return self._rng.normal(size=shape).astype(self.dtype)

    def integers(self, limit: int, *shape: int) -> Array:
        """Return random numbers from 0 up to, not including, a limit."""
        return self._rng.integers(0, limit, shape)

    def call(self, function: Callable[..., Any], *arguments: Any) -> tuple[Any, tuple[Launch, ...]]:
        """Call an op; return its result, which is rubbish unless launches are run, and its launches."""
        launches: list[Launch] = []

        def note(launch: Launch) -> None:
            launches.append(launch)
            if self.on_launch is not None:
                self.on_launch(launch)

        with emulator.intercepted(note), np.errstate(all="ignore"):
            result = function(*arguments)
        return result, tuple(launches)


def problems(
    size: Size = REFERENCE,
    on_launch: OnLaunch | None = None,
    head_widths: Sequence[int] = HEAD_WIDTHS,
    dtypes: Sequence[str] = DTYPES,
) -> Iterator[Problem]:
    """Call every op for every dtype, and tell what it launched.

    Parameters
    ----------
    size : Size
    on_launch : callable, optional
        Told of each launch, which it has to run: the arrays then hold random numbers.
    head_widths : sequence of int
        What the attention kernels are compiled for.
    dtypes : sequence of str
        Some of `DTYPES`.

    Yields
    ------
    Problem
        After its launches.
    """
    for dtype in dtypes:
        maker = Maker(size, dtype, on_launch)
        yield from _embedding(maker)
        yield from _layernorm(maker)
        for form in gelu.FORMS:
            yield from _gelu(maker, form)
        yield from _cross_entropy(maker)
        for head_width in head_widths:
            yield from _attention(maker, head_width, softmax_attention_scalar, maker.unit)
    for head_width in head_widths if "float16" in dtypes else ():
        maker = Maker(size, "float16", on_launch)
        yield from _attention(maker, head_width, softmax_attention_mma, "tensor")


def _embedding(make: Maker) -> Iterator[Problem]:
    size = make.size
    tokens, width = size.texts * size.tokens, size.width
    ids = [make.integers(limit, size.texts, size.tokens) for limit in (size.words, size.tokens, 2)]
    words, positions, types = (make.floats(rows, width) for rows in (size.words, size.tokens, 2))
    shape = f"B={size.texts} T={size.tokens} D={width} V={size.words}"
    # Of the table of words, one row a token is read.
    touched = {_address(words): tokens * width * make.dtype.itemsize}
    (y, cache), launches = make.call(
        embedding.embedding_forward, ids[0], None, ids[1], ids[2], words, positions, types, None
    )
    yield _problem(
        make,
        "embedding_forward",
        shape,
        2 * tokens * width,
        _nbytes([*ids, words, positions, types, y], touched),
        launches,
        touched,
    )
    dtables, launches = make.call(embedding.embedding_backward, make.floats(*y.shape), cache)
    written = _nbytes([table for table in dtables if table is not None])
    yield _problem(
        make, "embedding_backward", shape, 3 * tokens * width, _nbytes([*ids, y]) + written, launches
    )


def _layernorm(make: Maker) -> Iterator[Problem]:
    size = make.size
    rows, width = size.texts * size.tokens, size.width
    x, residual, dy = (make.floats(rows, width) for _ in range(3))
    weight, bias = make.floats(width), make.floats(width)
    shape = f"R={rows} D={width}"
    (y, cache), launches = make.call(layernorm.residual_layernorm_forward, x, residual, weight, bias, 1e-12)
    saved = _nbytes([cache.mean, cache.inv_std])
    yield _problem(
        make,
        "residual_layernorm_forward",
        shape,
        8 * rows * width,
        _nbytes([x, residual, weight, bias, y]) + saved,
        launches,
    )
    gradients, launches = make.call(layernorm.residual_layernorm_backward, dy, cache)
    yield _problem(
        make,
        "residual_layernorm_backward",
        shape,
        14 * rows * width,
        _nbytes([dy, x, residual, weight, *gradients]) + saved,
        launches,
    )


def _gelu(make: Maker, form: str) -> Iterator[Problem]:
    size = make.size
    rows, width = size.texts * size.tokens, size.feed_forward
    x, bias, dy = make.floats(rows, width), make.floats(width), make.floats(rows, width)
    shape = f"R={rows} D={width}"
    (y, cache), launches = make.call(gelu.bias_gelu_forward, x, bias, form)
    yield _problem(
        make,
        "bias_gelu_forward",
        shape,
        8 * rows * width,
        _nbytes([x, bias, y]),
        launches,
        variant=form,
    )
    gradients, launches = make.call(gelu.bias_gelu_backward, dy, cache)
    yield _problem(
        make,
        "bias_gelu_backward",
        shape,
        15 * rows * width,
        _nbytes([dy, x, bias, *gradients]),
        launches,
        variant=form,
    )


def _cross_entropy(make: Maker) -> Iterator[Problem]:
    rows, classes = make.size.labelled, make.size.classes
    logits, labels = make.floats(rows, classes), make.integers(classes, rows)
    shape = f"R={rows} V={classes}"
    (_, cache), launches = make.call(cross_entropy.cross_entropy_forward, logits, labels)
    saved = _nbytes([cache.row_max, cache.row_total])
    yield _problem(
        make,
        "cross_entropy_forward",
        shape,
        4 * rows * classes,
        _nbytes([logits, labels]) + saved,
        launches,
    )
    one = np.ones((), make.dtype)
    dlogits, launches = make.call(cross_entropy.cross_entropy_backward, one, cache)
    yield _problem(
        make,
        "cross_entropy_backward",
        shape,
        4 * rows * classes,
        _nbytes([logits, labels, dlogits]) + saved,
        launches,
    )
    twice = {_address(logits): 2 * logits.nbytes}
    _, launches = make.call(cross_entropy.cross_entropy_in_place, logits, labels)
    yield _problem(
        make,
        "cross_entropy_in_place",
        shape,
        8 * rows * classes,
        _nbytes([logits, labels], twice),
        launches,
        twice,
    )


def _attention(make: Maker, head_width: int, kernels: Any, unit: Unit) -> Iterator[Problem]:
    """Attention without masks, by one of the pairs that npbert.cuda.attention_options describes."""
    size = make.size
    rows = size.texts * size.tokens
    q, k, v, dcontext = (make.floats(rows, size.heads, head_width) for _ in range(4))
    sequences = Sequences(size.texts, size.tokens, size.tokens)
    options = AttentionOptions()
    matrix_product = 2 * size.texts * size.heads * size.tokens**2 * head_width
    shape = f"B={size.texts} N={size.heads} T={size.tokens} H={head_width}"
    (context, lse), launches = make.call(kernels.attention_forward, q, k, v, sequences, options)
    yield _problem(
        make,
        "attention_forward",
        shape,
        2 * matrix_product,
        _nbytes([q, k, v, context, lse]),
        launches,
        variant=f"H={head_width}",
        unit=unit,
    )
    # The scores are written and read, and so are the probabilities.
    scores = 4 * size.texts * size.heads * size.tokens**2 * make.dtype.itemsize
    if unit == "tensor" or make.dtype != np.float16:  # libraries multiply float16 on tensor cores
        yield _problem(
            make,
            "attention_forward, unfused",
            shape,
            2 * matrix_product,
            _nbytes([q, k, v, context, lse]) + scores,
            (),
            variant=f"H={head_width}",
            unit=unit,
        )
    arguments = (dcontext, q, k, v, context, lse, sequences, options)
    (dq, dk, dv, _), launches = make.call(kernels.attention_backward, *arguments)
    yield _problem(
        make,
        "attention_backward",
        shape,
        5 * matrix_product,
        _nbytes([dcontext, q, k, v, context, lse, dq, dk, dv]),
        launches,
        variant=f"H={head_width}",
        unit=unit,
    )


def _problem(
    make: Maker,
    op: str,
    shape: str,
    flops: int,
    minimum_bytes: int,
    launches: tuple[Launch, ...],
    touched: Mapping[int, int] | None = None,
    variant: str = "",
    unit: Unit | None = None,
) -> Problem:
    arrays_of = [[value for value in launch.values if isinstance(value, np.ndarray)] for launch in launches]
    return Problem(
        op=op,
        variant=f"{make.dtype.name} {variant}".strip(),
        shape=shape,
        unit=make.unit if unit is None else unit,
        flops=flops,
        minimum_bytes=minimum_bytes,
        launches=launches,
        launched_bytes=sum(_nbytes(arrays, touched) for arrays in arrays_of),
    )


def _nbytes(arrays: list[Array], touched: Mapping[int, int] | None = None) -> int:
    """Return how many bytes arrays have, or, where ``touched`` says so by address, how many are touched."""
    return sum((touched or {}).get(_address(array), array.nbytes) for array in arrays)


def _address(array: Array) -> int:
    address: int = array.ctypes.data
    return address
