"""The floor under the time of any engine: the matrix products of a BERT, and nothing else.

The products have the sizes that the model and the texts ask for, without padding: queries, keys and values as
one, scores and contexts head by head, the output, the two of the feed-forward layer, and what the task adds.
They are computed on memory that is allocated and written before, chunk by chunk of texts. `Floor` tries two
arrangements and keeps the faster one: products that the BLAS library spreads over threads by itself, and
chunks that threads share out, with one BLAS thread each.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npbert.config import BertConfig
from npbert.cpu.workers import share_out, single_threaded_blas

Array = NDArray[Any]
Chunk = Sequence["Product"]

CHUNK_TOKENS: Final = 2048
TRIALS: Final = 2  # timed runs of each arrangement, after one that fills the memory


class Product(NamedTuple):
    """A matrix product, or ``stack`` of them at once: (rows, inner) times (inner, columns).

    Attributes
    ----------
    rows, inner, columns : int
    form : {"NN", "NT", "TN"}
        Which factor is stored transposed.
    stack : int
    weight : str
        A factor with a name has memory of its own, as a parameter has: it is the second factor, and for "TN",
        a gradient with respect to it, the product.
    """

    rows: int
    inner: int
    columns: int
    form: Literal["NN", "NT", "TN"] = "NT"
    stack: int = 1
    weight: str = ""

    @property
    def flops(self) -> int:
        """Multiplications and additions."""
        return 2 * self.stack * self.rows * self.inner * self.columns


class Floor:
    """Runs the products of some chunks.

    Parameters
    ----------
    chunks : sequence of sequence of Product
        The chunks are independent of each other.
    dtype : dtype
    """

    def __init__(self, chunks: Sequence[Chunk], dtype: Any = np.float32) -> None:
        self.chunks = [list(chunk) for chunk in chunks]
        self.flops = sum(product.flops for chunk in self.chunks for product in chunk)
        self._dtype = np.dtype(dtype)
        self._weights: dict[tuple[str, int], Array] = {}
        for chunk in self.chunks:
            for product in chunk:
                if product.weight and product.form != "TN":
                    key = (product.weight, product.inner * product.columns)
                    self._weights.setdefault(key, np.ones(key[1], self._dtype))
        self._local = threading.local()
        one_by_one = self._shared_out if len(self.chunks) > 1 else self._on_one_thread
        self.arrangement = min((one_by_one, self._spread_by_blas), key=_least_seconds)

    def run(self) -> None:
        """Compute all products, in the faster arrangement."""
        self.arrangement()

    def _shared_out(self) -> None:
        share_out(self._run_chunk, range(len(self.chunks)))

    def _on_one_thread(self) -> None:
        with single_threaded_blas():
            self._spread_by_blas()

    def _spread_by_blas(self) -> None:
        for number in range(len(self.chunks)):
            self._run_chunk(number)

    def _run_chunk(self, number: int) -> None:
        # Views are made once a thread and chunk: Python's part of a small product is not the product's.
        views = self._local.__dict__.setdefault("views", {})
        if number not in views:
            views[number] = [self._views(product) for product in self.chunks[number]]
        for left, right, product in views[number]:
            np.matmul(left, right, out=product)

    def _views(self, product: Product) -> tuple[Array, Array, Array]:
        stack, rows, inner, columns = product.stack, product.rows, product.inner, product.columns
        left = self._memory("left", stack * rows * inner)
        size = inner * columns
        right = self._weights.get((product.weight, size)) if product.weight else None
        if right is None:
            right = self._memory("right", stack * size)
        # The memory of each product is another thread's nowhere: this is written.
        out = self._memory("out", stack * rows * columns).reshape(stack, rows, columns)
        if product.form == "TN":
            first = left.reshape(stack, inner, rows).swapaxes(-1, -2)
        else:
            first = left.reshape(stack, rows, inner)
        if product.form == "NT":
            second = right.reshape(stack, columns, inner).swapaxes(-1, -2)
        else:
            second = right.reshape(stack, inner, columns)
        return (first[0], second[0], out[0]) if stack == 1 else (first, second, out)

    def _memory(self, name: str, size: int) -> Array:
        """Return memory of this thread's own; ones, because the arithmetic of denormals is slow."""
        buffers = self._local.__dict__.setdefault("buffers", {})
        if name not in buffers:
            buffers[name] = np.ones(self._largest(name), self._dtype)
        view: Array = buffers[name][:size]
        return view

    def _largest(self, name: str) -> int:
        return max(
            product.stack
            * {
                "left": product.rows * product.inner,
                "right": product.inner * product.columns,
                "out": product.rows * product.columns,
            }[name]
            for chunk in self.chunks
            for product in chunk
        )


def forward_products(
    config: BertConfig, lengths: Sequence[int], pooler: bool = False, wanted: Sequence[int] | None = None
) -> list[Product]:
    """Return the products of a forward pass over the tokens of some texts.

    Parameters
    ----------
    config : BertConfig
    lengths : sequence of int
        Tokens of each text.
    pooler : bool
        Whether there is one.
    wanted : sequence of int, optional
        Of how many tokens of each text the last layer's result is wanted; by default, of all.

    Examples
    --------
    >>> config = BertConfig(hidden_size=8, num_attention_heads=2, intermediate_size=32, num_hidden_layers=1)
    >>> products = forward_products(config, [5])
    >>> sum(product.flops for product in products)
    8480
    >>> 2 * 5 * (4 * 8 * 8 + 2 * 8 * 32) + 2 * 2 * 5 * 5 * 8
    8480
    """
    hidden, inner, tokens = config.hidden_size, config.intermediate_size, sum(lengths)
    heads, width = config.num_attention_heads, config.head_width
    products = []
    for layer in range(config.num_hidden_layers):
        is_last = layer == config.num_hidden_layers - 1
        queries = wanted if wanted is not None and is_last else lengths
        rows = sum(queries)
        products.append(Product(tokens, hidden, 3 * hidden, weight=f"{layer}.query, key, value"))
        for length, count in zip(lengths, queries, strict=True):
            products.append(Product(count, width, length, "NT", heads))  # scores
            products.append(Product(count, length, width, "NN", heads))  # contexts
        products.append(Product(rows, hidden, hidden, weight=f"{layer}.output"))
        products.append(Product(rows, hidden, inner, weight=f"{layer}.intermediate"))
        products.append(Product(rows, inner, hidden, weight=f"{layer}.feed-forward output"))
    if pooler:
        products.append(Product(len(lengths), hidden, hidden, weight="pooler"))
    return products


def with_gradients(products: Sequence[Product]) -> list[Product]:
    """Return products and, for each of them, the two that its gradients take.

    Examples
    --------
    >>> with_gradients([Product(rows=4, inner=2, columns=3)])[1:]
    [Product(rows=4, inner=3, columns=2, form='NN', stack=1, weight=''), \
Product(rows=3, inner=4, columns=2, form='TN', stack=1, weight='')]
    """
    found = list(products)
    for product in reversed(products):
        rows, inner, columns = product.rows, product.inner, product.columns
        if product.form == "NT":  # y = x wᵀ: dx = dy w, dw = dyᵀ x
            found.append(product._replace(inner=columns, columns=inner, form="NN"))
            found.append(product._replace(rows=columns, inner=rows, columns=inner, form="TN"))
        else:  # y = x w: dx = dy wᵀ, dw = xᵀ dy
            found.append(product._replace(inner=columns, columns=inner, form="NT"))
            found.append(product._replace(rows=inner, inner=rows, form="TN"))
    return found


def decoder_products(config: BertConfig, masked: int) -> list[Product]:
    """Return the products of a masked-language-model head at so many masked places."""
    hidden = config.hidden_size
    return [
        Product(masked, hidden, hidden, weight="transform"),
        Product(masked, hidden, config.vocab_size, weight="decoder"),
    ]


def chunks_of(lengths: Sequence[int], chunk_tokens: int = CHUNK_TOKENS) -> list[list[int]]:
    """Sort texts by length and cut them into chunks of about so many tokens, the longest texts first.

    Examples
    --------
    >>> chunks_of([3, 9, 4, 5], chunk_tokens=8)
    [[9], [5], [4, 3]]
    """
    chunks: list[list[int]] = []
    for length in sorted(lengths, reverse=True):
        if not chunks or sum(chunks[-1]) + length > chunk_tokens:
            chunks.append([])
        chunks[-1].append(length)
    return chunks


def _least_seconds(run: Callable[[], None]) -> float:
    run()
    seconds = []
    for _ in range(TRIALS):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
