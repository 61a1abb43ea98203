"""The fast engine: the names of :mod:`npbert.ops`, arranged for a processor's caches and cores, in NumPy.

The mathematics is the textbook's. What differs: work goes through blocks that stay in the cache, in place,
in memory that is allocated once; blocks are shared out to threads (:func:`workers`), cut at places that
depend on the arrays alone; ops that follow each other are one pass (:mod:`npbert.fused_layer`); texts are
encoded without padding (:mod:`npbert.cpu.packed`), and trained on without it (:mod:`npbert.cpu.encoder`), in
memory that is used again (:mod:`npbert.cpu.workspace`).

What is not listed below as this engine's own is the textbook's function.
"""

from npbert.cpu.activations import activation_backward, activation_forward
from npbert.cpu.cross_entropy import (
    cross_entropy_backward,
    cross_entropy_forward,
    decoder_cross_entropy,
)
from npbert.cpu.dropout import dropout_backward, dropout_forward, dropout_keep_mask
from npbert.cpu.embedding import embedding_backward, embedding_forward
from npbert.cpu.encoder import encoder_backward, encoder_forward
from npbert.cpu.gelu import (
    bias_gelu_backward,
    bias_gelu_forward,
    gelu_backward,
    gelu_forward,
)
from npbert.cpu.layernorm import (
    layernorm_backward,
    layernorm_forward,
    residual_layernorm_backward,
    residual_layernorm_forward,
)
from npbert.cpu.linear import linear_backward, linear_forward
from npbert.cpu.packed import encode_packed, is_packable
from npbert.cpu.softmax import softmax_backward, softmax_forward
from npbert.cpu.softmax_attention import (
    dropout_attention_forward,
    softmax_attention_backward,
    softmax_attention_forward,
)
from npbert.cpu.workers import workers
from npbert.fused_layer import encoder_layer_backward, encoder_layer_forward
from npbert.ops import (
    array_module,
    bce_with_logits_backward,
    bce_with_logits_forward,
    cls_pooling_backward,
    cls_pooling_forward,
    default_position_ids,
    erf,
    erfc,
    l2_normalize_backward,
    l2_normalize_forward,
    mean_pooling_backward,
    mean_pooling_forward,
    merge_heads,
    mse_backward,
    mse_forward,
    normal_cdf,
    relative_position_backward,
    relative_position_forward,
    sinusoidal_positions,
    split_heads,
)

__all__ = [
    "activation_backward",
    "activation_forward",
    "array_module",
    "bce_with_logits_backward",
    "bce_with_logits_forward",
    "bias_gelu_backward",
    "bias_gelu_forward",
    "cls_pooling_backward",
    "cls_pooling_forward",
    "cross_entropy_backward",
    "cross_entropy_forward",
    "decoder_cross_entropy",
    "default_position_ids",
    "dropout_attention_forward",
    "dropout_backward",
    "dropout_forward",
    "dropout_keep_mask",
    "embedding_backward",
    "embedding_forward",
    "encode_packed",
    "encoder_backward",
    "encoder_forward",
    "encoder_layer_backward",
    "encoder_layer_forward",
    "erf",
    "erfc",
    "gelu_backward",
    "gelu_forward",
    "is_packable",
    "l2_normalize_backward",
    "l2_normalize_forward",
    "layernorm_backward",
    "layernorm_forward",
    "linear_backward",
    "linear_forward",
    "mean_pooling_backward",
    "mean_pooling_forward",
    "merge_heads",
    "mse_backward",
    "mse_forward",
    "normal_cdf",
    "relative_position_backward",
    "relative_position_forward",
    "residual_layernorm_backward",
    "residual_layernorm_forward",
    "sinusoidal_positions",
    "softmax_attention_backward",
    "softmax_attention_forward",
    "softmax_backward",
    "softmax_forward",
    "split_heads",
    "workers",
]
