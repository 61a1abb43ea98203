"""One encoder layer over some rows, forward and backward, on the calling thread.

It is what :mod:`npbert.model` does with padded batches, arranged for a processor: the rows are those of whole
texts, without padding; q, k and v are one product; each product is followed at once by what belongs to its
rows, in place, while they are in the cache; only attention knows where a text ends. Every result is written
to memory that the caller has planned.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from npbert.config import BertConfig
from npbert.cpu.dropout import drop
from npbert.cpu.gelu import write_gelu
from npbert.cpu.keep_mask import TextDropout, draw_kept_rows, drawn_together
from npbert.cpu.layernorm import normalise_rows
from npbert.cpu.packed_attention import Dropout, attend, attend_backward
from npbert.cpu.rows import Chunk, Text
from npbert.cpu.workers import BLOCK, row_blocks, row_by_row, scratch
from npbert.ops.activations import ACTIVATIONS, GELU_FORMS
from npbert.ops.array_module import Array
from npbert.ops.dropout import SITE_ATTENTION_OUTPUT, SITE_ATTENTION_PROBS, SITE_FEED_FORWARD_OUTPUT
from npbert.params import Params

QKV = ("attention.self.query", "attention.self.key", "attention.self.value")
OTHERS = (
    "attention.output.dense",
    "attention.output.LayerNorm",
    "intermediate.dense",
    "output.dense",
    "output.LayerNorm",
)


class LayerWeights(NamedTuple):
    """The parameters of a layer, or their gradients; the three projections before attention are one."""

    qkv: Array  # (3 D, D)
    qkv_bias: Array
    attention_output: Array  # (D, D)
    attention_output_bias: Array
    attention_norm: Array  # (D,)
    attention_norm_bias: Array
    intermediate: Array  # (F, D)
    intermediate_bias: Array
    output: Array  # (D, F)
    output_bias: Array
    output_norm: Array  # (D,)
    output_norm_bias: Array


def layer_weights(params: Params) -> LayerWeights:
    """Arrange a layer's parameters."""
    return LayerWeights(
        np.concatenate([params[f"{name}.weight"] for name in QKV]),
        np.concatenate([params[f"{name}.bias"] for name in QKV]),
        *(params[f"{name}.{part}"] for name in OTHERS for part in ("weight", "bias")),
    )


def layer_params(weights: LayerWeights) -> Params:
    """Return them under their names again; views."""
    params = {}
    for name, weight, bias in zip(QKV, np.split(weights.qkv, 3), np.split(weights.qkv_bias, 3), strict=True):
        params[f"{name}.weight"], params[f"{name}.bias"] = weight, bias
    for name, weight, bias in zip(OTHERS, weights[2::2], weights[3::2], strict=True):
        params[f"{name}.weight"], params[f"{name}.bias"] = weight, bias
    return params


def cut(vector: Array, weights: LayerWeights) -> LayerWeights:
    """Return views of the shapes of ``weights``, one after the other in a vector of their size."""
    ends = np.cumsum([weight.size for weight in weights])
    parts = zip(weights, np.split(vector, ends[:-1]), strict=True)
    return LayerWeights(*(part.reshape(weight.shape) for weight, part in parts))


class LayerMemory(NamedTuple):
    """What a layer computes on its way and reads again on its way back.

    After attention there are only the W rows of which its result is wanted.
    """

    qkv: Any  # (R, 3 D)
    lse: Any  # (W, N), see `attend`
    context: Any  # (W, D)
    attention_keep: Any  # (W, D) bool, None without dropout
    attention_hat: Any  # (W, D), the layernorm's rows before they are scaled
    attention_inv_std: Any  # (W, 1)
    attended: Any  # (W, D)
    activated: Any  # (W, F)
    slope: Any  # (W, F), of the activation
    output_keep: Any  # (W, D) bool, None without dropout
    output_hat: Any  # (W, D)
    output_inv_std: Any  # (W, 1)


def layer_memory_plan(
    rows: int, wanted: int, config: BertConfig, dtype: DTypeLike, has_dropout: bool
) -> LayerMemory:
    """Return the shape and the dtype of each field, of R rows of which W are wanted."""
    width, inner = config.hidden_size, config.intermediate_size
    keep = ((wanted, width), bool) if has_dropout and config.hidden_dropout_prob > 0 else None
    return LayerMemory(
        qkv=((rows, 3 * width), dtype),
        lse=((wanted, config.num_attention_heads), dtype),
        context=((wanted, width), dtype),
        attention_keep=keep,
        attention_hat=((wanted, width), dtype),
        attention_inv_std=((wanted, 1), dtype),
        attended=((wanted, width), dtype),
        activated=((wanted, inner), dtype),
        slope=((wanted, inner), dtype),
        output_keep=keep,
        output_hat=((wanted, width), dtype),
        output_inv_std=((wanted, 1), dtype),
    )


def planned(plan: LayerMemory) -> list[Any]:
    """Return the shapes and dtypes of a plan's fields that are there."""
    return [field for field in plan if field is not None]


def filled(plan: LayerMemory, arrays: Iterator[Array]) -> LayerMemory:
    """Return the arrays in the place of a plan's fields that are there."""
    return LayerMemory(*(None if field is None else next(arrays) for field in plan))


class LayerDropout(NamedTuple):
    """What the masks of a layer are drawn from."""

    seed: int
    layer: int
    tokens: int  # T of the padded batch, whose masks they are
    places: Array  # (R,) int, each row's place among the B * T tokens


def layer_forward(
    x: Array,
    y: Array,
    memory: LayerMemory,
    chunk: Chunk,
    weights: LayerWeights,
    config: BertConfig,
    dropout: LayerDropout | None,
) -> list[Any]:
    """Apply one layer to the rows of whole texts.

    Parameters
    ----------
    x : (R, D) float32 or float64
    y : (W, D)
        Written: the wanted rows of the result.
    memory : LayerMemory
        Written.
    chunk : Chunk
        Where texts end, and which rows are wanted.
    weights : LayerWeights
    config : BertConfig
    dropout : LayerDropout or None

    Returns
    -------
    list
        What `attend` keeps of the dropout of each text in which something is wanted.
    """
    kept = _attention_forward(x, memory, chunk, weights, config, dropout)
    if dropout is not None:
        dropout = dropout._replace(places=dropout.places[chunk.wanted])
    _attention_output_forward(x[chunk.wanted], memory, weights, config, dropout)
    _feed_forward_forward(y, memory, weights, config, dropout)
    return kept


def layer_backward(
    dy: Array,
    dx: Array,
    gradients: LayerWeights,
    is_first: bool,
    x: Array,
    memory: LayerMemory,
    chunk: Chunk,
    weights: LayerWeights,
    config: BertConfig,
    attention_kept: list[Any],
) -> None:
    """Backward of :func:`layer_forward`.

    Parameters
    ----------
    dy : (W, D) floating
        Gradient of the output; overwritten.
    dx : (R, D)
        Written: the gradient of the input; may be ``dy``, if all rows are wanted.
    gradients : LayerWeights
        What these rows contribute is added, or, if it is the first contribution, written.
    is_first : bool
    x, memory, chunk, weights, config
        Those of the forward.
    attention_kept : list
        What the forward returned.
    """
    _feed_forward_backward(dy, gradients, is_first, memory, weights, config)
    dcontext, dresidual = _attention_output_backward(dy, gradients, is_first, memory, weights, config)
    _attention_backward(dcontext, dx, gradients, is_first, x, memory, chunk, weights, config, attention_kept)
    dx[chunk.wanted] += dresidual


def rows_of(memory: LayerMemory, chunk: Chunk) -> LayerMemory:
    """Return the rows of a chunk."""
    wanted = LayerMemory(*(None if array is None else array[chunk.wanted_rows] for array in memory))
    return wanted._replace(qkv=memory.qkv[chunk.rows])


# The parts of a layer ----------------------------------------------------------------------------------


def _attention_forward(
    x: Array,
    memory: LayerMemory,
    chunk: Chunk,
    weights: LayerWeights,
    config: BertConfig,
    dropout: LayerDropout | None,
) -> list[Any]:
    _linear(x, weights.qkv, weights.qkv_bias, memory.qkv)
    q, k, v = _split(memory.qkv, config)
    q = q[chunk.wanted]
    (context,) = _split(memory.context, config)
    texts = _texts_with_queries(chunk)
    return [
        attend(
            q[text.queries],
            k[text.rows],
            v[text.rows],
            context[text.queries],
            text.keys,
            memory.lse[text.queries],
            text_dropout,
        )
        for text, text_dropout in zip(texts, _text_dropouts(texts, config, dropout), strict=True)
    ]


def _attention_backward(
    dcontext: Array,
    dx: Array,
    gradients: LayerWeights,
    is_first: bool,
    x: Array,
    memory: LayerMemory,
    chunk: Chunk,
    weights: LayerWeights,
    config: BertConfig,
    attention_kept: list[Any],
) -> None:
    dqkv = scratch("layer dqkv", memory.qkv.shape, dx.dtype)
    q, k, v = _split(memory.qkv, config)
    dq, dk, dv = _split(dqkv, config)
    are_all_wanted = len(memory.context) == len(x)
    if are_all_wanted:
        dq_wanted = dq
    else:
        dqkv[...] = 0  # of texts in which nothing is wanted, and of queries that are not
        dq_wanted = scratch("layer dq", (len(memory.context), *q.shape[1:]), dx.dtype)
    q = q[chunk.wanted]
    (context,), (dcontext,) = _split(memory.context, config), _split(dcontext, config)
    for text, kept in zip(_texts_with_queries(chunk), attention_kept, strict=True):
        rows, queries = text.rows, text.queries
        attend_backward(
            dcontext[queries],
            q[queries],
            k[rows],
            v[rows],
            context[queries],
            memory.lse[queries],
            dq_wanted[queries],
            dk[rows],
            dv[rows],
            text.keys,
            kept,
            1.0 if kept is None else 1 / (1 - config.attention_probs_dropout_prob),
        )
    if not are_all_wanted:
        dq[chunk.wanted] = dq_wanted
    _add_product(dqkv, x, gradients.qkv, gradients.qkv_bias, is_first)
    np.matmul(dqkv, weights.qkv, out=dx)


def _attention_output_forward(
    residual: Array,
    memory: LayerMemory,
    weights: LayerWeights,
    config: BertConfig,
    dropout: LayerDropout | None,
) -> None:
    _linear(memory.context, weights.attention_output, weights.attention_output_bias, memory.attention_hat)
    _draw_and_drop(memory.attention_hat, memory.attention_keep, config, dropout, SITE_ATTENTION_OUTPUT)
    _residual_layernorm(
        residual,
        memory.attention_hat,
        memory.attention_inv_std,
        weights.attention_norm,
        weights.attention_norm_bias,
        config.layer_norm_eps,
        memory.attended,
    )


def _attention_output_backward(
    dy: Array,
    gradients: LayerWeights,
    is_first: bool,
    memory: LayerMemory,
    weights: LayerWeights,
    config: BertConfig,
) -> tuple[Array, Array]:
    """Return the gradients of attention's result and of the residual, in scratch memory."""
    dsum = scratch("layer dsum", dy.shape, dy.dtype)
    _layernorm_backward(
        dy,
        memory.attention_hat,
        memory.attention_inv_std,
        weights.attention_norm,
        (gradients.attention_norm, gradients.attention_norm_bias),
        is_first,
        dsum,
    )
    dprojected = _dropped(dsum, memory.attention_keep, config)
    _add_product(
        dprojected, memory.context, gradients.attention_output, gradients.attention_output_bias, is_first
    )
    dcontext = np.matmul(
        dprojected, weights.attention_output, out=scratch("layer dcontext", dy.shape, dy.dtype)
    )
    return dcontext, dsum


def _feed_forward_forward(
    y: Array, memory: LayerMemory, weights: LayerWeights, config: BertConfig, dropout: LayerDropout | None
) -> None:
    np.matmul(memory.attended, weights.intermediate.T, out=memory.activated)
    _bias_activation(memory.activated, weights.intermediate_bias, memory.slope, config.hidden_act)
    _linear(memory.activated, weights.output, weights.output_bias, memory.output_hat)
    _draw_and_drop(memory.output_hat, memory.output_keep, config, dropout, SITE_FEED_FORWARD_OUTPUT)
    _residual_layernorm(
        memory.attended,
        memory.output_hat,
        memory.output_inv_std,
        weights.output_norm,
        weights.output_norm_bias,
        config.layer_norm_eps,
        y,
    )


def _feed_forward_backward(
    dy: Array,
    gradients: LayerWeights,
    is_first: bool,
    memory: LayerMemory,
    weights: LayerWeights,
    config: BertConfig,
) -> None:
    dsum = scratch("layer dsum", dy.shape, dy.dtype)
    _layernorm_backward(
        dy,
        memory.output_hat,
        memory.output_inv_std,
        weights.output_norm,
        (gradients.output_norm, gradients.output_norm_bias),
        is_first,
        dsum,
    )
    dprojected = _dropped(dsum, memory.output_keep, config)
    _add_product(dprojected, memory.activated, gradients.output, gradients.output_bias, is_first)
    dwidened = scratch("layer dwidened", memory.activated.shape, dy.dtype)
    np.matmul(dprojected, weights.output, out=dwidened)
    dwidened *= memory.slope
    _add_product(dwidened, memory.attended, gradients.intermediate, gradients.intermediate_bias, is_first)
    np.matmul(dwidened, weights.intermediate, out=dy)
    dy += dsum  # the residual, and the way through the feed-forward part


# Their parts -------------------------------------------------------------------------------------------


def _linear(x: Array, weight: Array, bias: Array, out: Array) -> None:
    np.matmul(x, weight.T, out=out)
    out += bias


def _add_product(dy: Array, x: Array, dweight: Array, dbias: Array, is_first: bool) -> None:
    """Add the gradients of weight and bias of a linear map, or write them."""
    ones = np.ones(len(dy), dy.dtype)
    if is_first:
        np.matmul(dy.T, x, out=dweight)
        np.matmul(ones, dy, out=dbias)
    else:
        dweight += np.matmul(dy.T, x, out=scratch("layer dweight", dweight.shape, dy.dtype))
        dbias += ones @ dy


def _bias_activation(x: Array, bias: Array, slope: Array, name: str) -> None:
    """Replace the rows of x by the activation of ``x + bias``, and write its derivative to ``slope``."""
    for rows in row_blocks(len(x), max(1, BLOCK // x.shape[1])):
        part, slope_part = x[rows], slope[rows]
        part += bias
        if name in GELU_FORMS:
            flat = part.reshape(-1)
            write_gelu(flat, flat, slope_part.reshape(-1), GELU_FORMS[name], exact_tail=False)
        else:
            activation = ACTIVATIONS[name]
            kept = activation.kept(part)
            slope_part[...] = activation.slope(part, kept)
            part[...] = activation.value(part, kept)


def _residual_layernorm(
    residual: Array, hat: Array, inv_std: Array, weight: Array, bias: Array, eps: float, y: Array
) -> None:
    """Write the layer norm of ``hat + residual`` to ``y``, and the rows before they are scaled to ``hat``."""
    with row_by_row():
        for rows in _norm_blocks(hat):
            part = hat[rows]
            part += residual[rows]
            inv_std[rows] = normalise_rows(part, part, eps)
            np.multiply(part, weight, out=y[rows])
            y[rows] += bias


def _layernorm_backward(
    dy: Array,
    hat: Array,
    inv_std: Array,
    weight: Array,
    gradients: tuple[Array, Array],
    is_first: bool,
    dx: Array,
) -> None:
    """Write the gradient of the layernorm's input to ``dx``; add those of weight and bias, or write them."""
    dweight, dbias = gradients
    if is_first:
        dweight[...] = dbias[...] = 0
    ones = np.ones(len(dy), dy.dtype)
    with row_by_row():
        for rows in _norm_blocks(dy):
            product = scratch("layer product", dy[rows].shape, dy.dtype)
            np.multiply(dy[rows], hat[rows], out=product)
            dweight += ones[: len(product)] @ product
            dbias += ones[: len(product)] @ dy[rows]
            width = dy.shape[1]
            through_variance = np.vecdot(product, weight)[:, None] / width
            through_mean = np.vecdot(dy[rows], weight)[:, None] / width
            part = np.multiply(dy[rows], weight, out=dx[rows])
            part -= np.multiply(hat[rows], through_variance, out=product)
            part -= through_mean
            part *= inv_std[rows]


def _norm_blocks(x: Array) -> list[slice]:
    return row_blocks(len(x), max(1, BLOCK // x.shape[1]))


# Heads and dropout -------------------------------------------------------------------------------------


def _split(x: Array, config: BertConfig) -> tuple[Array, ...]:
    """Cut (R, n D) into n times (R, N, H)."""
    heads, width = config.num_attention_heads, config.hidden_size
    return tuple(
        x[:, start : start + width].reshape(len(x), heads, width // heads)
        for start in range(0, x.shape[1], width)
    )


def _draw_and_drop(
    x: Array, keep: Array | None, config: BertConfig, dropout: LayerDropout | None, site: int
) -> None:
    """Draw these rows of the mask of the whole padded batch, keep it, and apply it to ``x``."""
    if keep is None or dropout is None:
        return
    width, rate = x.shape[1], config.hidden_dropout_prob
    keep[...] = draw_kept_rows(dropout.places * width, width, rate, dropout.seed, dropout.layer, site)
    drop(x, keep, rate, out=x)


def _dropped(dsum: Array, keep: Array | None, config: BertConfig) -> Array:
    """Return ``dsum``, or, with dropout, what came through the mask."""
    if keep is None:
        return dsum
    dropped = scratch("layer dropped", dsum.shape, dsum.dtype)
    drop(dsum, keep, config.hidden_dropout_prob, out=dropped)
    return dropped


def _texts_with_queries(chunk: Chunk) -> list[Text]:
    return [text for text in chunk.texts if text.queries.stop > text.queries.start]


def _text_dropouts(
    texts: list[Text], config: BertConfig, dropout: LayerDropout | None
) -> Sequence[Dropout | None]:
    """Return each text's dropout of the attention probabilities."""
    rate = config.attention_probs_dropout_prob
    if dropout is None or rate == 0:
        return [None] * len(texts)
    return drawn_together(
        [
            TextDropout(
                rate,
                dropout.seed,
                dropout.layer,
                SITE_ATTENTION_PROBS,
                text.number,
                config.num_attention_heads,
                dropout.tokens,
                text.tokens,
                text.query_tokens,
            )
            for text in texts
        ]
    )
