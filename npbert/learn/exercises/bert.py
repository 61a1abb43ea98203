"""Exercise: a whole BERT, whose parts are the learner's own."""

from typing import Any

import numpy as np

from npbert.learn.exercise import Exercise, WrongAnswer

FORMULA = """
A BERT of one layer, from word ids to the loss of masked words. Its operations
(``ops``) are those that you wrote in the exercises before; here you join them.
The forward is given. Go through it from its last line to its first.

    hidden    = layernorm(embedding(ids))
    attended  = layernorm(hidden + linear(attention(q, k, v)))
    output    = layernorm(attended + linear(gelu(linear(attended))))
    logits    = output tableᵀ + bias
    loss      = cross_entropy(logits, labels)

q, k and v are linear layers of hidden; table is the word embedding, again.

linear_back and norm_back return the gradient of the input, and enter those of
weight and bias in grads. Two things to watch: a value that is used more than
once gets the sum of its gradients (hidden is used four times), and so does the
table."""

SOLUTION = """
HEADS, PADDING = 2, 0


def linear(x, name, params, cache, ops):
    y, cache[name] = ops.linear_forward(x, params[f"{name}.weight"], params[f"{name}.bias"])
    return y


def linear_back(dy, name, cache, grads, ops):
    dx, grads[f"{name}.weight"], grads[f"{name}.bias"] = ops.linear_backward(dy, cache[name])
    return dx


def norm(x, name, params, cache, ops):
    y, cache[name] = ops.layernorm_forward(x, params[f"{name}.weight"], params[f"{name}.bias"], 1e-12)
    return y


def norm_back(dy, name, cache, grads, ops):
    dx, grads[f"{name}.weight"], grads[f"{name}.bias"] = ops.layernorm_backward(dy, cache[name])
    return dx


def bert_forward(params, batch, ops):
    cache = {}
    embedded, cache["embedding"] = ops.embedding_forward(
        batch["input_ids"],
        None,
        batch["position_ids"],
        batch["token_type_ids"],
        params["word.weight"],
        params["position.weight"],
        params["token_type.weight"],
        PADDING,
    )
    hidden = norm(embedded, "embedding_norm", params, cache, ops)

    q = ops.split_heads(linear(hidden, "query", params, cache, ops), HEADS)
    k = ops.split_heads(linear(hidden, "key", params, cache, ops), HEADS)
    v = ops.split_heads(linear(hidden, "value", params, cache, ops), HEADS)
    context, cache["attention"] = ops.softmax_attention_forward(q, k, v, None, batch["key_mask"])
    merged = ops.merge_heads(context)
    projected = linear(merged, "attention_output", params, cache, ops)
    attended = norm(hidden + projected, "attention_norm", params, cache, ops)

    widened = linear(attended, "widen", params, cache, ops)
    activated, cache["gelu"] = ops.activation_forward(widened, "gelu")
    narrowed = linear(activated, "narrow", params, cache, ops)
    output = norm(attended + narrowed, "output_norm", params, cache, ops)

    logits, cache["decoder"] = ops.linear_forward(output, params["word.weight"], params["decoder.bias"])
    loss, cache["loss"] = ops.cross_entropy_forward(logits, batch["labels"])
    cache["logits"] = logits
    return loss, cache


def bert_backward(dloss, cache, ops):
    grads = {}
    dlogits = ops.cross_entropy_backward(dloss, cache["loss"])  # (B, T, V)
    doutput, dtable_decoder, grads["decoder.bias"] = ops.linear_backward(dlogits, cache["decoder"])

    doutput_sum = norm_back(doutput, "output_norm", cache, grads, ops)  # (B, T, D)
    dactivated = linear_back(doutput_sum, "narrow", cache, grads, ops)  # (B, T, F)
    dwidened = ops.activation_backward(dactivated, cache["gelu"])  # (B, T, F)
    dattended = doutput_sum + linear_back(dwidened, "widen", cache, grads, ops)  # (B, T, D)

    dattended_sum = norm_back(dattended, "attention_norm", cache, grads, ops)  # (B, T, D)
    dmerged = linear_back(dattended_sum, "attention_output", cache, grads, ops)  # (B, T, D)
    dcontext = ops.split_heads(dmerged, HEADS)  # (B, N, T, H)
    dq, dk, dv, _ = ops.softmax_attention_backward(dcontext, cache["attention"])  # (B, N, T, H) each
    through_query = linear_back(ops.merge_heads(dq), "query", cache, grads, ops)  # (B, T, D)
    through_key = linear_back(ops.merge_heads(dk), "key", cache, grads, ops)  # (B, T, D)
    through_value = linear_back(ops.merge_heads(dv), "value", cache, grads, ops)  # (B, T, D)
    dhidden = dattended_sum + through_query + through_key + through_value  # (B, T, D)

    dembedded = norm_back(dhidden, "embedding_norm", cache, grads, ops)  # (B, T, D)
    _, dtable_embedding, grads["position.weight"], grads["token_type.weight"] = ops.embedding_backward(
        dembedded, cache["embedding"]
    )
    dtable = dtable_decoder + dtable_embedding  # (V, D)
    grads["word.weight"] = dtable
    return grads
"""

HINTS = (
    "Each line of the forward has its line here, in the opposite order. Where the forward adds (hidden + "
    "projected), the gradient goes both ways, unchanged. Where it uses a value again, the gradients meet "
    "and are added.",
    "doutput_sum is the gradient of attended + narrowed: of attended (the residual) and of narrowed. So "
    "dattended is doutput_sum plus what comes back through narrow, gelu and widen. In the same way hidden "
    "gets dattended_sum plus what comes back through query, key and value. split_heads and merge_heads undo "
    "each other.",
    'dwidened = ops.activation_backward(dactivated, cache["gelu"]); dattended = doutput_sum + '
    'linear_back(dwidened, "widen", cache, grads, ops); dq, dk, dv, _ = '
    'ops.softmax_attention_backward(dcontext, cache["attention"]); through_query = '
    'linear_back(ops.merge_heads(dq), "query", cache, grads, ops); dtable = dtable_decoder + '
    "dtable_embedding.",
)

WRONG_ANSWERS = (
    WrongAnswer(
        "forgets the residual around the feed-forward layer",
        "attended goes into the sum attended + narrowed too, and gets that sum's gradient as it is.",
        "everything from attention_norm down to the embedding is wrong; widen, narrow and output_norm are "
        "right",
        {"dattended": 'linear_back(dwidened, "widen", cache, grads, ops)'},
    ),
    WrongAnswer(
        "forgets the residual around attention",
        "hidden goes into the sum hidden + projected too, and gets that sum's gradient as it is.",
        "only the embedding's tables and its layernorm are wrong; the attention's own parameters are right",
        {"dhidden": "through_query + through_key + through_value"},
    ),
    WrongAnswer(
        "forgets the way through the values",
        "hidden is used four times: for q, for k, for v, and in the residual. The values carry most of the "
        "gradient.",
        "only the embedding's tables and its layernorm are wrong; query, key and value are right",
        {"dhidden": "dattended_sum + through_query + through_key"},
    ),
    WrongAnswer(
        "loses the decoder's gradient of the tied table",
        "the word table is used twice, as an embedding and as the decoder's weight, and gets both gradients.",
        "only word.weight is wrong, and it is 0 for words that do not occur in the text",
        {"dtable": "dtable_embedding"},
    ),
    WrongAnswer(
        "loses the embedding's gradient of the tied table",
        "the word table is used twice, as an embedding and as the decoder's weight, and gets both gradients.",
        "only word.weight is wrong, and only for words that occur in the text",
        {"dtable": "dtable_decoder"},
    ),
    WrongAnswer(
        "skips the activation",
        "between widen and narrow there is gelu, and the gradient must go back through it.",
        "narrow and output_norm are right; widen and everything before it are wrong",
        {"dwidened": "dactivated"},
    ),
    WrongAnswer(
        "swaps the ways through query and key",
        "dq belongs to the query's layer and dk to the key's.",
        "query, key and everything before them are wrong; value and attention_output are right",
        {
            "through_query": 'linear_back(ops.merge_heads(dk), "query", cache, grads, ops)',
            "through_key": 'linear_back(ops.merge_heads(dq), "key", cache, grads, ops)',
        },
    ),
)

PARAMETER_SHAPES = {
    "word.weight": ("V", "D"),
    "position.weight": ("P", "D"),
    "token_type.weight": ("S", "D"),
    "embedding_norm.weight": ("D",),
    "embedding_norm.bias": ("D",),
    "query.weight": ("D", "D"),
    "query.bias": ("D",),
    "key.weight": ("D", "D"),
    "key.bias": ("D",),
    "value.weight": ("D", "D"),
    "value.bias": ("D",),
    "attention_output.weight": ("D", "D"),
    "attention_output.bias": ("D",),
    "attention_norm.weight": ("D",),
    "attention_norm.bias": ("D",),
    "widen.weight": ("F", "D"),
    "widen.bias": ("F",),
    "narrow.weight": ("D", "F"),
    "narrow.bias": ("D",),
    "output_norm.weight": ("D",),
    "output_norm.bias": ("D",),
    "decoder.bias": ("V",),
}


def draw_params(rng: np.random.Generator, scale: float, **sizes: int) -> dict[str, Any]:
    """Draw all parameters of the exercise's BERT.

    Parameters
    ----------
    rng : Generator
    scale : float
        Standard deviation of the parameters; layernorm's weights lie around 1.
    **sizes : int
        D, F, V, P and S.

    Returns
    -------
    dict of str to array, float64
    """
    params = {
        name: scale * rng.standard_normal([sizes[letter] for letter in letters])
        for name, letters in PARAMETER_SHAPES.items()
    }
    for name in params:
        if name.endswith("norm.weight"):
            params[name] = params[name] + 1
    return params


def cases() -> list[tuple[Any, ...]]:
    """Return parameters and a batch with padding, repeated words, two segments and few labels."""
    params = draw_params(np.random.default_rng(10), 0.5, D=4, F=5, V=7, P=4, S=2)
    input_ids = np.array([[1, 4, 5, 4], [1, 3, 0, 0]])
    batch = {
        "input_ids": input_ids,
        "position_ids": np.broadcast_to(np.arange(4), (2, 4)).copy(),
        "token_type_ids": np.array([[0, 0, 1, 1], [0, 1, 0, 0]]),
        "key_mask": input_ids != 0,
        "labels": np.array([[-100, 2, -100, 4], [-100, 3, -100, -100]]),
    }
    return [(params, batch)]


BERT = Exercise(
    name="bert",
    title="a whole BERT, trained on your own backward",
    formula=FORMULA,
    solution=SOLUTION,
    function="bert",
    hints=HINTS,
    cases=cases,
    wrong_answers=WRONG_ANSWERS,
    remember="From here on it is only more layers.",
    structural_zeros=("key.bias",),  # softmax does not see what is added to all scores of a row
    takes_ops=True,
)
