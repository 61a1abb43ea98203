"""The CUDA engine: the names of :mod:`npbert.ops`, computed by fused kernels where that pays.

What is not listed below as this engine's own is the textbook's function, which runs on CuPy arrays as it runs
on NumPy's. On NumPy arrays the kernels run emulated (:mod:`npbert.cuda.emulator`).

Beside the textbook's names there are fused ones, each in two functions, ``..._forward`` and ``..._backward``:

==================== ===========================================================================
bias_gelu            gelu(x + bias), with the bias's gradient
residual_layernorm   layernorm(x + residual)
dropout_attention    attention that draws its dropout in the kernel; the backward is softmax_attention's
packed_attention     attention over texts of any lengths, without padding, dropout in the kernel
encoder_layer        a whole layer of these: what :mod:`npbert.model` uses of an engine
==================== ===========================================================================

and ``cross_entropy_in_place``, which leaves the gradient where the logits were.
"""

from npbert.cuda import emulator
from npbert.cuda.cross_entropy import (
    cross_entropy_backward,
    cross_entropy_forward,
    cross_entropy_in_place,
)
from npbert.cuda.embedding import embedding_backward, embedding_forward
from npbert.cuda.gelu import (
    activation_backward,
    activation_forward,
    bias_gelu_backward,
    bias_gelu_forward,
    gelu_backward,
    gelu_forward,
)
from npbert.cuda.layernorm import (
    layernorm_backward,
    layernorm_forward,
    residual_layernorm_backward,
    residual_layernorm_forward,
)
from npbert.cuda.linear import linear_backward, linear_forward
from npbert.cuda.relative_position import relative_position_backward, relative_position_forward
from npbert.cuda.softmax_attention import (
    dropout_attention_forward,
    packed_attention_backward,
    packed_attention_forward,
    softmax_attention_backward,
    softmax_attention_forward,
)
from npbert.fused_layer import encoder_layer_backward, encoder_layer_forward
from npbert.ops import (
    array_module,
    bce_with_logits_backward,
    bce_with_logits_forward,
    cls_pooling_backward,
    cls_pooling_forward,
    default_position_ids,
    dropout_backward,
    dropout_forward,
    dropout_keep_mask,
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
    sinusoidal_positions,
    softmax_backward,
    softmax_forward,
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
    "cross_entropy_in_place",
    "default_position_ids",
    "dropout_attention_forward",
    "dropout_backward",
    "dropout_forward",
    "dropout_keep_mask",
    "embedding_backward",
    "embedding_forward",
    "emulator",
    "encoder_layer_backward",
    "encoder_layer_forward",
    "erf",
    "erfc",
    "gelu_backward",
    "gelu_forward",
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
    "packed_attention_backward",
    "packed_attention_forward",
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
]
