"""The head that learns on top of an encoder that does not: logistic regression, perhaps of a mix of layers.

::

    (B, J, D) standardized features -> layer mix -> (B, D) -> linear -> (B, C) logits -> loss

Of one layer alone there is no mix. Parameters are a dict, as a model's are.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np

from npbert import ops
from npbert.config import BertConfig
from npbert.labels import IGNORE_INDEX
from npbert.ops.array_module import Array
from npbert.params import Params
from npbert.training.layer_mix import layer_mix_backward, layer_mix_forward

MIX_WEIGHT: Final = "mix.weight"
MIX_GAMMA: Final = "mix.gamma"
CLASSIFIER_WEIGHT: Final = "classifier.weight"
CLASSIFIER_BIAS: Final = "classifier.bias"
FEATURES_MEAN: Final = "features.mean"
FEATURES_SCALE: Final = "features.scale"


class Standardization(NamedTuple):
    """What gives each feature mean 0 and standard deviation 1 over the training texts.

    Without it, a few large features decide how fast all others learn.
    """

    mean: Array  # (J, D)
    scale: Array  # (J, D), the standard deviation; 1 where a feature is the same for all texts


def measure(features: Array) -> Standardization:
    """Return the standardization of some features (n, J, D)."""
    scale = features.std(axis=0)
    return Standardization(features.mean(axis=0), np.where(scale > 0, scale, 1).astype(features.dtype))


def standardize(features: Array, standardization: Standardization) -> Array:
    """Return standardized features.  (n, J, D) -> (n, J, D)

    Examples
    --------
    >>> features = np.array([[[1.0, 5.0]], [[3.0, 5.0]]])
    >>> standardize(features, measure(features)).tolist()
    [[[-1.0, 0.0]], [[1.0, 0.0]]]
    """
    standardized: Array = (features - standardization.mean) / standardization.scale
    return standardized


def feature_layers(config: BertConfig, layers: str) -> int:
    """Return how many layers' vectors are a text's features; a mix has the embeddings, too."""
    return config.num_hidden_layers + 1 if layers == "mix" else 1


def head_shapes(config: BertConfig, layers: str) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the head's parameters.

    Parameters
    ----------
    config : BertConfig
    layers : str
        "last", or "mix": of the embeddings and all layers.

    Returns
    -------
    dict of str to tuple of int
    """
    shapes: dict[str, tuple[int, ...]] = {
        CLASSIFIER_WEIGHT: (config.num_labels, config.hidden_size),
        CLASSIFIER_BIAS: (config.num_labels,),
    }
    if layers == "mix":
        shapes |= {MIX_WEIGHT: (feature_layers(config, layers),), MIX_GAMMA: (1,)}
    return shapes


def head_forward(head: Params, features: Array) -> tuple[Array, Any]:
    """Mix the layers, if there is a mix, and score the classes.  (B, J, D) -> (B, C)"""
    mix_cache = None
    if MIX_WEIGHT in head:
        mixed, mix_cache = layer_mix_forward(features, head[MIX_WEIGHT], head[MIX_GAMMA])
    else:
        mixed = features[:, 0]  # (B, D)
    logits, linear_cache = ops.linear_forward(mixed, head[CLASSIFIER_WEIGHT], head[CLASSIFIER_BIAS])
    return logits, (linear_cache, mix_cache)


def head_backward(dlogits: Array, cache: Any) -> Params:
    """Backward of :func:`head_forward`; returns the gradients of the head's parameters."""
    linear_cache, mix_cache = cache
    grads: Params = {}
    dmixed, grads[CLASSIFIER_WEIGHT], dbias = ops.linear_backward(dlogits, linear_cache)
    assert dbias is not None
    grads[CLASSIFIER_BIAS] = dbias
    if mix_cache is not None:
        grads[MIX_WEIGHT], grads[MIX_GAMMA] = layer_mix_backward(dmixed, mix_cache)
    return grads


def head_loss_and_grads(
    head: Params, features: Array, labels: Array, problem_type: str
) -> tuple[Any, Params]:
    """Return the mean loss of some texts, and the gradients of the head's parameters.

    Parameters
    ----------
    head : dict of str to array
    features : (B, J, D) floating
    labels : (B,) int64, the classes; or (B, C) floating
        By ``problem_type``, as for `npbert.Bert.loss_and_grads`.
    problem_type : str
        Which loss it is: cross-entropy, yes-or-no cross-entropy, or squared error.

    Returns
    -------
    loss : () floating
    grads : dict of str to array
        Keyed like ``head``.
    """
    logits, cache = head_forward(head, features)
    one = logits.real.dtype.type(1)
    if problem_type == "single_label_classification":
        loss, loss_cache = ops.cross_entropy_forward(logits, labels, IGNORE_INDEX)
        dlogits = ops.cross_entropy_backward(one, loss_cache)
    elif problem_type == "multi_label_classification":
        loss, bce_cache = ops.bce_with_logits_forward(logits, labels.astype(logits.real.dtype))
        dlogits = ops.bce_with_logits_backward(one, bce_cache)[0]
    else:
        loss, mse_cache = ops.mse_forward(logits, labels.astype(logits.real.dtype))
        dlogits = ops.mse_backward(one, mse_cache)[0]
    grads = head_backward(dlogits, cache)
    return loss, {name: grads[name] for name in head}


def check_head(head: Params, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise a ValueError unless these are the parameters of a head, of these shapes, and finite."""
    for name, shape in shapes.items():
        if name not in head:
            raise ValueError(f"{name} is missing")
        if head[name].shape != shape:
            raise ValueError(f"{name} has the shape {head[name].shape}; it must be {shape}")
        if not np.isfinite(head[name]).all():
            raise ValueError(f"{name} is not finite")
    if unknown := sorted(set(head) - set(shapes)):
        raise ValueError(f"{unknown[0]} is no parameter of such a head; these are: {', '.join(shapes)}")
