"""The whole encoder without padding, forward and backward.

Chunks of texts go forward through all layers on their own, each on one thread. Backward a layer is done in
two steps: each chunk goes back through it, and the gradients of its weights, sums over the rows of all
chunks, are shared out by features. Chunks and features are cut where the batch and the model alone say: no
result depends on the number of workers.
"""

from types import ModuleType
from typing import Any

import numpy as np

from npbert import model
from npbert.config import BertConfig
from npbert.cpu.packed import is_packable
from npbert.cpu.packed_layer import (
    QKV,
    LayerCotangents,
    LayerDropout,
    LayerMemory,
    LayerWeights,
    filled,
    layer_backward,
    layer_cotangents_plan,
    layer_forward,
    layer_memory_plan,
    layer_weights,
    planned,
    rows_of,
)
from npbert.cpu.rows import Chunk, Packing, pack
from npbert.cpu.workers import row_blocks, scratch, share_out
from npbert.cpu.workspace import Workspace
from npbert.ops.array_module import Array
from npbert.params import Params, subset, with_prefix

# Features whose weight gradients are one product.
FEATURES = 256


class PackedEncoderCache:
    """What :func:`encoder_backward` needs; as long as it lives, its memory is nobody else's."""

    def __init__(
        self,
        packing: Packing,
        layers: list[LayerWeights],
        config: BertConfig,
        hidden: Array,
        dropout_seed: int | None,
    ) -> None:
        rows, self.dtype = len(packing.places), hidden.dtype
        plan = layer_memory_plan(rows, config, hidden.dtype, dropout_seed is not None)
        self.packing = packing
        self.layers = layers
        self.workspace = Workspace([((rows, hidden.shape[-1]), hidden.dtype), *planned(plan)] * len(layers))
        arrays = iter(self.workspace.arrays)
        self.hiddens: list[Array] = []  # (R, D), the input of each layer
        self.memories: list[LayerMemory] = []
        for _ in layers:
            self.hiddens.append(next(arrays))
            self.memories.append(filled(plan, arrays))
        # What attention keeps of its dropout, by layer and chunk.
        self.attention_kept: dict[tuple[int, int], list[Any]] = {}


def encoder_forward(
    params: Params,
    config: BertConfig,
    hidden: Array,
    key_mask: Array | None,
    read_mask: Array | None,
    dropout_seed: int | None,
    ops: ModuleType,
    output_hidden_states: bool = False,
    output_attentions: bool = False,
    keep_cache: bool = True,
) -> tuple[model.EncoderOutput, PackedEncoderCache | model.EncoderCache | None]:
    """Apply all encoder layers for training; see :func:`npbert.model.encoder_forward`.

    Without a way back, the textbook's encoder is run, with the engine's layers: what a model answers is the
    same to the last bit, whatever else is asked for.

    Parameters
    ----------
    params : dict of str to array
    config : BertConfig
        Relative positions are left to the textbook's encoder, too, and so are parameters of other dtypes.
    hidden : (B, T, D) float32 or float64
    key_mask, read_mask : (B, T) bool or None
        A token that is in neither gets zeros.
    dropout_seed : int or None
    ops : module
    output_hidden_states, output_attentions : bool
        Either is the textbook's encoder's.
    keep_cache : bool

    Returns
    -------
    output : EncoderOutput
    cache : PackedEncoderCache; where the textbook's encoder was run, its cache or None
    """
    is_for_training = keep_cache and not (output_hidden_states or output_attentions)
    if not is_for_training or not _is_supported(params, config, hidden):
        return model.encoder_forward(
            params,
            config,
            hidden,
            key_mask,
            read_mask,
            dropout_seed,
            ops,
            output_hidden_states,
            output_attentions,
            keep_cache,
        )
    packing = pack(hidden.shape[:2], key_mask, read_mask)
    layers = [layer_weights(subset(params, f"layer.{layer}.")) for layer in range(config.num_hidden_layers)]
    cache = PackedEncoderCache(packing, layers, config, hidden, dropout_seed)
    width = hidden.shape[-1]
    hidden_rows, last_rows = (
        hidden.reshape(-1, width),
        np.zeros(hidden.shape, hidden.dtype).reshape(-1, width),
    )

    def encode(numbered: tuple[int, Chunk]) -> None:
        number, chunk = numbered
        places = packing.places[chunk.rows]
        y = scratch("encoder output", (len(places), width), hidden.dtype)
        xs = [*(x[chunk.rows] for x in cache.hiddens), y]
        np.take(hidden_rows, places, axis=0, out=xs[0], mode="clip")
        for layer, weights in enumerate(layers):
            memory = rows_of(cache.memories[layer], chunk.rows)
            dropout = None
            if dropout_seed is not None:
                dropout = LayerDropout(dropout_seed, layer, hidden.shape[1], places)
            cache.attention_kept[layer, number] = layer_forward(
                xs[layer], xs[layer + 1], memory, chunk.texts, weights, config, dropout
            )
        last_rows[places] = xs[-1]

    share_out(encode, enumerate(packing.chunks))
    return model.EncoderOutput(last_rows.reshape(hidden.shape), None, None), cache


def encoder_backward(
    dy: Array, cache: PackedEncoderCache | model.EncoderCache, config: BertConfig, ops: ModuleType
) -> tuple[Array, Params]:
    """Backward of :func:`encoder_forward`.

    Parameters
    ----------
    dy : (B, T, D) floating
    cache : what the forward returned
    config : BertConfig
    ops : module

    Returns
    -------
    dhidden : (B, T, D)
        Zeros where a token was left out.
    grads : dict of str to array
        Keyed like the encoder's parameters.
    """
    if isinstance(cache, model.EncoderCache):
        return model.encoder_backward(dy, cache, config, ops)
    packing, dtype = cache.packing, cache.dtype
    rows, width = len(packing.places), dy.shape[-1]
    plan = layer_cotangents_plan(rows, config, dtype)
    workspace = Workspace([((rows, width), dtype), *plan])
    dhidden, *arrays = workspace.arrays
    cotangents = LayerCotangents(*arrays)
    dy_rows, dx_rows = dy.reshape(-1, width), np.zeros(dy.shape, dtype).reshape(-1, width)
    norm_sums = np.zeros((len(cache.layers), len(packing.chunks), 4, width), dtype)
    grads: Params = {}

    def go_back(numbered: tuple[int, Chunk]) -> None:
        number, chunk = numbered
        places, dhidden_rows = packing.places[chunk.rows], dhidden[chunk.rows]
        if layer == len(cache.layers) - 1:
            np.take(dy_rows, places, axis=0, out=dhidden_rows, mode="clip")
        layer_backward(
            dhidden_rows,
            rows_of(cotangents, chunk.rows),
            norm_sums[layer, number],
            rows_of(cache.memories[layer], chunk.rows),
            chunk.texts,
            cache.layers[layer],
            config,
            cache.attention_kept[layer, number],
        )
        if layer == 0:
            dx_rows[places] = dhidden_rows

    for layer in reversed(range(len(cache.layers))):
        share_out(go_back, enumerate(packing.chunks))
        layer_grads = _weight_gradients(cotangents, cache.hiddens[layer], cache.memories[layer])
        layer_grads |= _norm_gradients(norm_sums[layer].sum(axis=0))
        grads |= with_prefix(layer_grads, f"layer.{layer}.")
    return dx_rows.reshape(dy.shape), grads


def _weight_gradients(cotangents: LayerCotangents, x: Array, memory: LayerMemory) -> Params:
    """Return the gradients of a layer's products, from what came back to each and what each was made with."""
    factors = {
        "qkv": (cotangents.qkv, x),
        "attention.output.dense": (cotangents.attention_output, memory.context),
        "intermediate.dense": (cotangents.intermediate, memory.attended),
        "output.dense": (cotangents.output, memory.activated),
    }
    weights = {name: np.empty((dy.shape[1], x.shape[1]), dy.dtype) for name, (dy, x) in factors.items()}
    biases = {name: np.empty(dy.shape[1], dy.dtype) for name, (dy, _) in factors.items()}
    ones = np.ones(len(x), x.dtype)

    def multiply(piece: tuple[str, slice]) -> None:
        name, features = piece
        dy, x = factors[name]
        np.matmul(dy[:, features].T, x, out=weights[name][features])
        np.matmul(ones, dy[:, features], out=biases[name][features])

    share_out(
        multiply,
        [(name, features) for name in factors for features in row_blocks(len(biases[name]), FEATURES)],
    )
    grads = {}
    for name in factors:
        if name == "qkv":
            for third, qkv_weight, qkv_bias in zip(
                QKV, np.split(weights[name], 3), np.split(biases[name], 3), strict=True
            ):
                grads[f"{third}.weight"], grads[f"{third}.bias"] = qkv_weight, qkv_bias
        else:
            grads[f"{name}.weight"], grads[f"{name}.bias"] = weights[name], biases[name]
    return grads


def _norm_gradients(sums: Array) -> Params:
    names = [
        f"{name}.LayerNorm.{part}" for name in ("attention.output", "output") for part in ("weight", "bias")
    ]
    return dict(zip(names, sums, strict=True))


def _is_supported(params: Params, config: BertConfig, hidden: Array) -> bool:
    dtypes = {hidden.dtype, *(value.dtype for value in params.values())}
    return is_packable(config) and dtypes in ({np.dtype(np.float32)}, {np.dtype(np.float64)})
