"""One encoder layer over some rows, forward and backward, on the calling thread.

It is what :mod:`npbert.model` does with padded batches, arranged for a processor: the rows are those of whole
texts, without padding; q, k and v are one product; each product is followed at once by what belongs to its
rows, in place, while they are in the cache; only attention knows where a text ends. Every result is written
to memory that the caller has planned.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from npbert.config import BertConfig
from npbert.cpu.dropout import drop
from npbert.cpu.gelu import BLOCK as GELU_BLOCK
from npbert.cpu.gelu import write_gelu
from npbert.cpu.keep_mask import TextDropout, draw_kept_rows
from npbert.cpu.layernorm import _normalise as normalise_rows
from npbert.cpu.packed_attention import attend, attend_backward
from npbert.cpu.rows import Text
from npbert.cpu.workers import row_blocks, row_by_row, scratch
from npbert.ops.activations import ACTIVATIONS, GELU_FORMS
from npbert.ops.array_module import Array
from npbert.ops.dropout import SITE_ATTENTION_OUTPUT, SITE_ATTENTION_PROBS, SITE_FEED_FORWARD_OUTPUT
from npbert.params import Params

# Rows that go through the feed-forward part together: (rows, F) is its widest matrix.
FEED_FORWARD_ROWS = 256
LAYERNORM_BLOCK = 32768  # elements: four float32 arrays of them are 512 KiB

QKV = ("attention.self.query", "attention.self.key", "attention.self.value")


class LayerWeights(NamedTuple):
    """The parameters of a layer; the three projections of attention are one."""

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
        *(
            params[f"{name}.{part}"]
            for name in (
                "attention.output.dense",
                "attention.output.LayerNorm",
                "intermediate.dense",
                "output.dense",
                "output.LayerNorm",
            )
            for part in ("weight", "bias")
        ),
    )


class LayerMemory(NamedTuple):
    """What a layer computes on its way and reads again on its way back; all with R rows."""

    qkv: Any  # (R, 3 D)
    lse: Any  # (R, N), see `attend`
    context: Any  # (R, D)
    attention_keep: Any  # (R, D) bool, None without dropout
    attention_hat: Any  # (R, D), the layernorm's rows before they are scaled
    attention_inv_std: Any  # (R, 1)
    attended: Any  # (R, D)
    activated: Any  # (R, F)
    slope: Any  # (R, F), of the activation
    output_keep: Any  # (R, D) bool, None without dropout
    output_hat: Any  # (R, D)
    output_inv_std: Any  # (R, 1)


def layer_memory_plan(rows: int, config: BertConfig, dtype: DTypeLike, has_dropout: bool) -> LayerMemory:
    """Return the shape and the dtype of each field."""
    width, inner = config.hidden_size, config.intermediate_size
    keep = ((rows, width), bool) if has_dropout and config.hidden_dropout_prob > 0 else None
    return LayerMemory(
        qkv=((rows, 3 * width), dtype),
        lse=((rows, config.num_attention_heads), dtype),
        context=((rows, width), dtype),
        attention_keep=keep,
        attention_hat=((rows, width), dtype),
        attention_inv_std=((rows, 1), dtype),
        attended=((rows, width), dtype),
        activated=((rows, inner), dtype),
        slope=((rows, inner), dtype),
        output_keep=keep,
        output_hat=((rows, width), dtype),
        output_inv_std=((rows, 1), dtype),
    )


def planned(plan: LayerMemory) -> list[Any]:
    """Return the shapes and dtypes of a plan's fields that are there."""
    return [field for field in plan if field is not None]


def filled(plan: LayerMemory, arrays: Iterator[Array]) -> LayerMemory:
    """Return the arrays in the place of a plan's fields that are there."""
    return LayerMemory(*(None if field is None else next(arrays) for field in plan))


class LayerCotangents(NamedTuple):
    """Gradients of what the layer's products made; all with R rows."""

    qkv: Any  # (R, 3 D)
    attention_output: Any  # (R, D)
    intermediate: Any  # (R, F)
    output: Any  # (R, D)


def layer_cotangents_plan(rows: int, config: BertConfig, dtype: DTypeLike) -> LayerCotangents:
    """Return the shape and the dtype of each field."""
    width = config.hidden_size
    return LayerCotangents(
        ((rows, 3 * width), dtype),
        ((rows, width), dtype),
        ((rows, config.intermediate_size), dtype),
        ((rows, width), dtype),
    )


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
    texts: list[Text],
    weights: LayerWeights,
    config: BertConfig,
    dropout: LayerDropout | None,
) -> list[Any]:
    """Apply one layer to the rows of whole texts.

    Parameters
    ----------
    x : (R, D) float32 or float64
    y : (R, D)
        Written; may be `x`.
    memory : LayerMemory
        Written.
    texts : list of Text
    weights : LayerWeights
    config : BertConfig
    dropout : LayerDropout or None

    Returns
    -------
    list
        What `attend` keeps of each text's dropout.
    """
    for rows in row_blocks(len(x), FEED_FORWARD_ROWS):
        _linear(x[rows], weights.qkv, weights.qkv_bias, memory.qkv[rows])
    q, k, v = _split(memory.qkv, config)
    (context,) = _split(memory.context, config)
    kept = [
        attend(
            q[text.rows],
            k[text.rows],
            v[text.rows],
            context[text.rows],
            text.keys,
            memory.lse[text.rows],
            _text_dropout(text, config, dropout),
        )
        for text in texts
    ]
    if dropout is not None and memory.output_keep is not None:
        _draw_keep(memory.attention_keep, config, dropout, SITE_ATTENTION_OUTPUT)
        _draw_keep(memory.output_keep, config, dropout, SITE_FEED_FORWARD_OUTPUT)
    for rows in row_blocks(len(x), FEED_FORWARD_ROWS):
        _row_by_row_forward(x[rows], y[rows], rows_of(memory, rows), weights, config)
    return kept


def layer_backward(
    dy: Array,
    cotangents: LayerCotangents,
    norm_sums: Array,
    memory: LayerMemory,
    texts: list[Text],
    weights: LayerWeights,
    config: BertConfig,
    attention_kept: list[Any],
) -> None:
    """Go back through one layer, but for the gradients of what its products are made with.

    Parameters
    ----------
    dy : (R, D) floating
        Gradient of the output; overwritten with that of the input.
    cotangents : LayerCotangents
        Written.
    norm_sums : (4, D) floating
        Gradients of the layernorms' parameters are added to it: weight and bias of attention's, then of the
        output's.
    memory, texts, weights, config
        Those of the forward.
    attention_kept : list
        What the forward returned.
    """
    dcontext = scratch("layer dcontext", dy.shape, dy.dtype)
    dattention_sum = cotangents.attention_output  # the same without dropout
    if memory.attention_keep is not None:
        dattention_sum = scratch("layer dattention sum", dy.shape, dy.dtype)
    for rows in row_blocks(len(dy), FEED_FORWARD_ROWS):
        _row_by_row_backward(
            dy[rows],
            dattention_sum[rows],
            dcontext[rows],
            rows_of(cotangents, rows),
            norm_sums,
            rows_of(memory, rows),
            weights,
            config.hidden_dropout_prob,
        )
    q, k, v = _split(memory.qkv, config)
    dq, dk, dv = _split(cotangents.qkv, config)
    (context,), (dcontexts,) = _split(memory.context, config), _split(dcontext, config)
    for text, kept in zip(texts, attention_kept, strict=True):
        rows = text.rows
        attend_backward(
            dcontexts[rows],
            q[rows],
            k[rows],
            v[rows],
            context[rows],
            memory.lse[rows],
            dq[rows],
            dk[rows],
            dv[rows],
            text.keys,
            kept,
            1.0 if kept is None else 1 / (1 - config.attention_probs_dropout_prob),
        )
    for rows in row_blocks(len(dy), FEED_FORWARD_ROWS):
        np.matmul(cotangents.qkv[rows], weights.qkv, out=dy[rows])
        dy[rows] += dattention_sum[rows]  # the residual, and the way through attention


def rows_of(arrays: Any, rows: slice) -> Any:
    """Return a NamedTuple of arrays with some of their rows."""
    return type(arrays)(*(None if array is None else array[rows] for array in arrays))


# What each row does alone ------------------------------------------------------------------------------


def _row_by_row_forward(
    x: Array, y: Array, memory: LayerMemory, weights: LayerWeights, config: BertConfig
) -> None:
    """Do what follows attention."""
    eps, rate = config.layer_norm_eps, config.hidden_dropout_prob
    _linear(memory.context, weights.attention_output, weights.attention_output_bias, memory.attention_hat)
    if memory.attention_keep is not None:
        drop(memory.attention_hat, memory.attention_keep, rate, out=memory.attention_hat)
    _residual_layernorm(
        x,
        memory.attention_hat,
        memory.attention_inv_std,
        weights.attention_norm,
        weights.attention_norm_bias,
        eps,
        memory.attended,
    )
    np.matmul(memory.attended, weights.intermediate.T, out=memory.activated)
    _bias_activation(memory.activated, weights.intermediate_bias, memory.slope, config.hidden_act)
    _linear(memory.activated, weights.output, weights.output_bias, memory.output_hat)
    if memory.output_keep is not None:
        drop(memory.output_hat, memory.output_keep, rate, out=memory.output_hat)
    _residual_layernorm(
        memory.attended,
        memory.output_hat,
        memory.output_inv_std,
        weights.output_norm,
        weights.output_norm_bias,
        eps,
        y,
    )


def _row_by_row_backward(
    dy: Array,
    dattention_sum: Array,
    dcontext: Array,
    cotangents: LayerCotangents,
    norm_sums: Array,
    memory: LayerMemory,
    weights: LayerWeights,
    rate: float,
) -> None:
    """Backward of :func:`_row_by_row_forward`: its statements in reverse; ``dy`` is overwritten."""
    dsum = cotangents.output  # the same without dropout
    if memory.output_keep is not None:
        dsum = scratch("layer doutput sum", dy.shape, dy.dtype)
    _layernorm_backward(
        dy, memory.output_hat, memory.output_inv_std, weights.output_norm, norm_sums[2:], dsum
    )
    if memory.output_keep is not None:
        drop(dsum, memory.output_keep, rate, out=cotangents.output)
    dwidened = np.matmul(cotangents.output, weights.output, out=cotangents.intermediate)
    dwidened *= memory.slope
    dattended = np.matmul(dwidened, weights.intermediate, out=dy)
    dattended += dsum  # the residual, and the way through the feed-forward part
    _layernorm_backward(
        dattended,
        memory.attention_hat,
        memory.attention_inv_std,
        weights.attention_norm,
        norm_sums[:2],
        dattention_sum,
    )
    if memory.attention_keep is not None:
        drop(dattention_sum, memory.attention_keep, rate, out=cotangents.attention_output)
    np.matmul(cotangents.attention_output, weights.attention_output, out=dcontext)


def _linear(x: Array, weight: Array, bias: Array, out: Array) -> None:
    np.matmul(x, weight.T, out=out)
    out += bias


def _bias_activation(x: Array, bias: Array, slope: Array, name: str) -> None:
    """Replace the rows of x by the activation of ``x + bias``, and write its derivative to ``slope``."""
    for rows in row_blocks(len(x), max(1, GELU_BLOCK // x.shape[1])):
        part, slope_part = x[rows], slope[rows]
        part += bias
        if name in GELU_FORMS:
            flat = part.reshape(-1)
            write_gelu(flat, flat, slope_part.reshape(-1), GELU_FORMS[name])
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


def _layernorm_backward(dy: Array, hat: Array, inv_std: Array, weight: Array, sums: Array, dx: Array) -> None:
    """Write the gradient of the layernorm's input to ``dx``; add those of its parameters to ``sums``."""
    ones = np.ones(len(dy), dy.dtype)
    with row_by_row():
        for rows in _norm_blocks(dy):
            product = scratch("layer product", dy[rows].shape, dy.dtype)
            np.multiply(dy[rows], hat[rows], out=product)
            sums[0] += ones[: len(product)] @ product
            sums[1] += ones[: len(product)] @ dy[rows]
            width = dy.shape[1]
            through_variance = np.vecdot(product, weight)[:, None] / width
            through_mean = np.vecdot(dy[rows], weight)[:, None] / width
            part = np.multiply(dy[rows], weight, out=dx[rows])
            part -= np.multiply(hat[rows], through_variance, out=product)
            part -= through_mean
            part *= inv_std[rows]


def _norm_blocks(x: Array) -> list[slice]:
    return row_blocks(len(x), max(1, LAYERNORM_BLOCK // x.shape[1]))


# Heads and dropout -------------------------------------------------------------------------------------


def _split(x: Array, config: BertConfig) -> tuple[Array, ...]:
    """Cut (R, n D) into n times (R, N, H)."""
    heads, width = config.num_attention_heads, config.hidden_size
    return tuple(
        x[:, start : start + width].reshape(len(x), heads, width // heads)
        for start in range(0, x.shape[1], width)
    )


def _draw_keep(keep: Array, config: BertConfig, dropout: LayerDropout, site: int) -> None:
    """Write the rows of a mask that is drawn for the whole padded batch."""
    width, rate = keep.shape[1], config.hidden_dropout_prob
    keep[...] = draw_kept_rows(dropout.places * width, width, rate, dropout.seed, dropout.layer, site)


def _text_dropout(text: Text, config: BertConfig, dropout: LayerDropout | None) -> TextDropout | None:
    rate = config.attention_probs_dropout_prob
    if dropout is None or rate == 0:
        return None
    return TextDropout(
        rate,
        dropout.seed,
        dropout.layer,
        SITE_ATTENTION_PROBS,
        text.number,
        config.num_attention_heads,
        dropout.tokens,
        text.tokens,
    )
