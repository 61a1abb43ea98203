"""The whole encoder without padding, forward and backward.

Chunks of texts go forward through all layers on their own, each on one thread; backward they meet after each
layer, where the gradients of its weights are added up: what a chunk contributes is computed while it is in
the cache. Chunks and sums are cut where the batch and the model alone say: no result depends on the number
of workers.
"""

from types import ModuleType
from typing import Any

import numpy as np

from npbert import model
from npbert.config import BertConfig
from npbert.cpu.packed import is_packable
from npbert.cpu.packed_layer import (
    LayerDropout,
    LayerMemory,
    LayerWeights,
    cut,
    filled,
    layer_backward,
    layer_forward,
    layer_memory_plan,
    layer_params,
    layer_weights,
    planned,
    rows_of,
)
from npbert.cpu.rows import Chunk, Packing, pack, wanted_count
from npbert.cpu.workers import row_blocks, scratch, share_out
from npbert.cpu.workspace import Workspace, recycled
from npbert.ops.array_module import Array
from npbert.params import Params, subset, with_prefix

# Chunks whose weight gradients are added up one after the other are a lane. More lanes keep more workers
# busy, and each has a layer's gradients of its own.
LANES = 8
SUMS = 1 << 18  # elements that are added up together


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
        self.chunks = [packing.chunks] * (len(layers) - 1) + [packing.last_chunks]  # of each layer
        plans = [
            layer_memory_plan(rows, wanted_count(chunks), config, hidden.dtype, dropout_seed is not None)
            for chunks in self.chunks
        ]
        hidden_plan = ((rows, hidden.shape[-1]), hidden.dtype)
        self.packing = packing
        self.layers = layers
        self.workspace = Workspace([array for plan in plans for array in (hidden_plan, *planned(plan))])
        arrays = iter(self.workspace.arrays)
        self.hiddens: list[Array] = []  # (R, D), the input of each layer
        self.memories: list[LayerMemory] = []
        for plan in plans:
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
        Relative positions are left to the textbook's encoder, too, and so are parameters of other dtypes
        and a model without layers.
    hidden : (B, T, D) float32 or float64
    key_mask, read_mask : (B, T) bool or None
        A token that is not read gets zeros: the last layer does not compute it.
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
    last_hidden = np.zeros(hidden.shape, hidden.dtype)
    hidden_rows, last_rows = hidden.reshape(-1, width), last_hidden.reshape(-1, width)

    def encode(numbered: tuple[int, Chunk]) -> None:
        number, last_chunk = numbered
        places = packing.places[last_chunk.rows]
        last_places = places[last_chunk.wanted]
        y = scratch("encoder output", (len(last_places), width), hidden.dtype)
        xs = [*(x[last_chunk.rows] for x in cache.hiddens), y]
        np.take(hidden_rows, places, axis=0, out=xs[0], mode="clip")
        for layer, weights in enumerate(layers):
            chunk = cache.chunks[layer][number]
            memory = rows_of(cache.memories[layer], chunk)
            dropout = None
            if dropout_seed is not None:
                dropout = LayerDropout(dropout_seed, layer, hidden.shape[1], places)
            cache.attention_kept[layer, number] = layer_forward(
                xs[layer], xs[layer + 1], memory, chunk, weights, config, dropout
            )
        last_rows[last_places] = y

    share_out(encode, enumerate(packing.last_chunks))
    return model.EncoderOutput(last_hidden, None, None), cache


def encoder_backward(
    dy: Array, cache: PackedEncoderCache | model.EncoderCache, config: BertConfig, ops: ModuleType
) -> tuple[Array, Params]:
    """Backward of :func:`encoder_forward`.

    Parameters
    ----------
    dy : (B, T, D) floating
        That of tokens that are not read is not looked at.
    cache : what the forward returned
    config : BertConfig
    ops : module

    Returns
    -------
    dhidden : (B, T, D)
        Zeros where a token is neither read nor a key.
    grads : dict of str to array
        Keyed like the encoder's parameters.
    """
    if isinstance(cache, model.EncoderCache):
        return model.encoder_backward(dy, cache, config, ops)
    packing, layers, dtype = cache.packing, cache.layers, cache.dtype
    rows, width = len(packing.places), dy.shape[-1]
    lanes = [list(range(len(packing.chunks)))[lane::LANES] for lane in range(LANES)]
    lanes = [numbers for numbers in lanes if numbers]
    size = sum(weight.size for weight in layers[0])
    workspace = Workspace([((rows, width), dtype), ((len(lanes), size), dtype)])
    dhidden, partial_sums = workspace.arrays
    sums = recycled((len(layers), size), dtype)
    dy_rows, dx_rows = dy.reshape(-1, width), np.zeros(dy.shape, dtype).reshape(-1, width)

    def go_back(lane: int) -> None:
        gradients = cut(partial_sums[lane], layers[layer])
        for number in lanes[lane]:
            chunk = cache.chunks[layer][number]
            places, dhidden_rows = packing.places[chunk.rows], dhidden[chunk.rows]
            is_last = layer == len(layers) - 1
            layer_backward(
                dy_rows[places[chunk.wanted]] if is_last else dhidden_rows,
                dhidden_rows,
                gradients,
                number == lanes[lane][0],
                cache.hiddens[layer][chunk.rows],
                rows_of(cache.memories[layer], chunk),
                chunk,
                layers[layer],
                config,
                cache.attention_kept[layer, number],
            )
            if layer == 0:
                dx_rows[places] = dhidden_rows

    def add_up(part: slice) -> None:
        np.add.reduce(partial_sums[:, part], axis=0, out=sums[layer, part])

    grads: Params = {}
    for layer in reversed(range(len(layers))):
        share_out(go_back, range(len(lanes)))
        share_out(add_up, row_blocks(size, SUMS))
        grads |= with_prefix(layer_params(cut(sums[layer], layers[layer])), f"layer.{layer}.")
    return dx_rows.reshape(dy.shape), grads


def _is_supported(params: Params, config: BertConfig, hidden: Array) -> bool:
    if config.num_hidden_layers == 0 or not is_packable(config):
        return False
    dtypes = {hidden.dtype, *(value.dtype for value in params.values())}
    return dtypes in ({np.dtype(np.float32)}, {np.dtype(np.float64)})
