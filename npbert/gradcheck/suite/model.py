"""Cases for what is built from the ops: the parts of the model, the whole body, and every task."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from npbert import model, ops
from npbert.config import BertConfig
from npbert.gradcheck.pair import Array
from npbert.gradcheck.suite.case import Case, Problem, held_row, normal, with_zeros
from npbert.heads import HeadOptions, task_backward, task_forward
from npbert.inputs import ModelInputs, prepare_inputs
from npbert.labels import prepare_labels
from npbert.params import WORD_EMBEDDINGS, parameter_shapes, subset

Params = dict[str, Array]

TEXTS, TOKENS, PAD = 4, 5, 0
DROPOUT_SEED = 20
# A constant added to all scores of a query changes no probability: what only does that has gradient zero.
KEY_BIAS = "*attention.self.key.bias"
SAMPLE = 8  # coordinates a tensor; two random directions see the others


def small_config(**fields: Any) -> BertConfig:
    """Return a configuration whose sizes are all different, and small."""
    sizes: dict[str, Any] = {
        "vocab_size": 17,
        "hidden_size": 6,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 7,
        "max_position_embeddings": 9,
        "type_vocab_size": 3,
        "pad_token_id": PAD,
        "hidden_dropout_prob": 0.2,
        "attention_probs_dropout_prob": 0.3,
    }
    return BertConfig(**sizes | fields)


def random_params(rng: np.random.Generator, config: BertConfig, task: str) -> Params:
    """Draw every parameter, biases and layer norms too, at a size that saturates nothing."""
    params = {}
    for name, shape in parameter_shapes(config, task).items():
        is_layernorm_weight = name.endswith("LayerNorm.weight")
        params[name] = np.float32(0.4) * with_zeros(rng, *shape) + np.float32(is_layernorm_weight)
    return params


def token_ids(rng: np.random.Generator, config: BertConfig, texts: int = TEXTS) -> Array:
    """Draw words with repetitions, never the padding."""
    return rng.integers(1, config.vocab_size // 2, size=(texts, TOKENS))


def texts_with_padding(rng: np.random.Generator, config: BertConfig, texts: int = TEXTS) -> dict[str, Any]:
    """Draw a batch in which texts have different lengths, and the last one no token that counts."""
    attention_mask = np.ones((texts, TOKENS), dtype=int)
    attention_mask[1, 3:] = 0
    attention_mask[2, 1:] = 0
    attention_mask[-1] = 0
    ids = token_ids(rng, config, texts)
    ids[1, 3:] = PAD
    ids[2, 1:] = PAD
    return {
        "input_ids": ids,
        "attention_mask": attention_mask,
        "token_type_ids": rng.integers(config.type_vocab_size, size=ids.shape),
    }


def real_dtype(params: Mapping[str, Array]) -> np.dtype[Any]:
    """Return the parameters' dtype, or that of their real parts in a complex step."""
    return np.dtype(next(iter(params.values())).real.dtype)


# Parts ------------------------------------------------------------------------------------------------


def embeddings(rng: np.random.Generator) -> Problem:
    """Lookup, layernorm and dropout; the padding's row is held constant, as it gets no gradient."""
    config = small_config()
    params = subset(random_params(rng, config, "encoder"), "embeddings.")
    words = "word_embeddings.weight"
    original = params[words].copy()
    inputs = prepare_inputs(config, "encoder", np.float32, **texts_with_padding(rng, config))

    def forward(params: Params) -> Any:
        params = params | {words: held_row(params[words], PAD, original)}
        hidden, cache = model.embeddings_forward(params, config, inputs, DROPOUT_SEED, ops)
        return hidden, (cache, params)

    def backward(dhidden: Array, cache: Any) -> Params:
        return model.embeddings_backward(dhidden, cache[0], cache[1], config, ops)[1]

    return Problem(forward, backward, (params,))


def _layer_problem(rng: np.random.Generator, part: str, config: BertConfig) -> Problem:
    """Draw one encoder layer, or its first or second half, with padded texts and dropout."""
    params = subset(random_params(rng, config, "encoder"), "encoder.layer.1.")
    key_mask = texts_with_padding(rng, config)["attention_mask"].astype(bool)
    zeros: tuple[str, ...] = (KEY_BIAS,)
    if part == "feed_forward":
        zeros = ()
        params = {name: value for name, value in params.items() if not name.startswith("attention.")}
    elif part == "self_attention":
        params = {name: value for name, value in params.items() if name.startswith("attention.")}
    if config.position_embedding_type == "relative_key_query":
        zeros = ()  # here the key bias meets the distances, which differ from key to key

    def forward(params: Params, hidden: Array) -> Any:
        if part == "feed_forward":
            return model.feed_forward_forward(params, config, hidden, DROPOUT_SEED, 1, ops)
        whole = part == "encoder_layer"
        function = model.encoder_layer_forward if whole else model.self_attention_forward
        return function(params, config, hidden, key_mask, DROPOUT_SEED, 1, ops)

    def backward(dy: Array, cache: Any) -> tuple[Params, Array]:
        if part == "feed_forward":
            dhidden, grads = model.feed_forward_backward(dy, cache, ops)
        elif part == "self_attention":
            dhidden, grads = model.self_attention_backward(dy, cache, config, ops)
        else:
            dhidden, grads = model.encoder_layer_backward(dy, cache, config, ops)
        return grads, dhidden

    hidden = normal(rng, TEXTS, TOKENS, config.hidden_size)
    return Problem(forward, backward, (params, hidden), zeros)


def layer(rng: np.random.Generator, part: str, **fields: Any) -> Problem:
    """Draw a layer, or a half of one, of a small configuration with some fields changed."""
    return _layer_problem(rng, part, small_config(**fields))


def pooler(rng: np.random.Generator) -> Problem:
    """The first token, a linear layer and tanh."""
    config = small_config()
    params = subset(random_params(rng, config, "encoder"), "pooler.")

    def forward(params: Params, hidden: Array) -> Any:
        return model.pooler_forward(params, hidden, ops)

    def backward(dpooled: Array, cache: Any) -> tuple[Params, Array]:
        dhidden, grads = model.pooler_backward(dpooled, cache, ops)
        return grads, dhidden

    return Problem(forward, backward, (params, normal(rng, TEXTS, TOKENS, config.hidden_size)))


# The whole body ---------------------------------------------------------------------------------------


def body(rng: np.random.Generator, vectors: bool, **fields: Any) -> Problem:
    """Both outputs of the body, from ids or from word vectors."""
    config = small_config(**fields)
    params = random_params(rng, config, "encoder")
    original = params[WORD_EMBEDDINGS].copy()
    inputs = prepare_inputs(config, "encoder", np.float32, **texts_with_padding(rng, config))

    def run(params: Params, inputs: ModelInputs) -> Any:
        output, cache = model.model_forward(params, config, inputs, ops, DROPOUT_SEED)
        return (output.last_hidden_state, output.pooler_output), (cache, params)

    def forward(params: Params) -> Any:
        words = held_row(params[WORD_EMBEDDINGS], PAD, original)
        return run(params | {WORD_EMBEDDINGS: words}, inputs)

    def forward_of_vectors(params: Params, inputs_embeds: Array) -> Any:
        return run(params, inputs._replace(input_ids=None, inputs_embeds=inputs_embeds))

    def backward(doutput: tuple[Array, Array], cache: Any) -> Any:
        dinputs_embeds, grads = model.model_backward(*doutput, cache[0], cache[1], config, ops)
        return (grads, dinputs_embeds) if vectors else grads

    zeros = _structural_zeros(config)
    if not vectors:
        return Problem(forward, backward, (params,), zeros, SAMPLE)
    inputs_embeds = normal(rng, TEXTS, TOKENS, config.hidden_size)
    return Problem(forward_of_vectors, backward, (params, inputs_embeds), (*zeros, WORD_EMBEDDINGS), SAMPLE)


def _structural_zeros(config: BertConfig) -> tuple[str, ...]:
    """Return the parameters of the body whose gradients are zero by construction."""
    if config.position_embedding_type == "relative_key_query":
        return ("*embeddings.position_embeddings.weight",)
    if config.position_embedding_type == "relative_key":
        return (KEY_BIAS, "*embeddings.position_embeddings.weight")
    return (KEY_BIAS,)


# Tasks ------------------------------------------------------------------------------------------------


def task(
    rng: np.random.Generator, task: str, zeros: tuple[str, ...] = (), all_logits: bool = True, **fields: Any
) -> Problem:
    """From the loss of a task, with dropout, to every parameter of its head and of a body of one layer.

    The padding id only stands where the attention mask is 0 and no label is, so no gradient reaches it
    through the lookup: the oracle and the backward, which gives it none by definition, agree on its row.
    """
    config = small_config(num_hidden_layers=1, **fields)
    params = random_params(rng, config, task)
    given = texts_with_padding(rng, config)
    choices = 2 if task == "multiple_choice" else 1
    if task == "multiple_choice":
        given = {name: value.reshape(-1, choices, TOKENS) for name, value in given.items()}
    if task == "question_answering":
        # Here padding competes with the other tokens for being the answer, so gradients do reach it.
        given["input_ids"] = token_ids(rng, config)
    labels = draw_labels(rng, config, task, given["attention_mask"])
    options = HeadOptions(DROPOUT_SEED, "mean", all_logits, choices)

    def forward(params: Params) -> Any:
        dtype = real_dtype(params)
        inputs = prepare_inputs(config, task, dtype, **given)
        checked = prepare_labels(config, task, dtype, inputs, **labels)
        _, head, cache = task_forward(params, config, task, inputs, checked, options, ops)
        return head.loss, (cache, params)

    def backward(dloss: Array, cache: Any) -> Params:
        return task_backward(dloss, cache[0], cache[1], config, task, ops)[1]

    return Problem(forward, backward, (params,), (*_structural_zeros(config), *zeros), SAMPLE)


def draw_labels(
    rng: np.random.Generator, config: BertConfig, task: str, attention_mask: Array
) -> dict[str, Array]:
    """Draw the labels of a task: some ignored, none on padding."""
    texts = attention_mask.shape[0]

    def classes(count: int, ignored: Array) -> Array:
        return np.asarray(np.where(ignored, -100, rng.integers(count, size=ignored.shape)))

    def some_tokens() -> Array:
        ignored: Array = (attention_mask == 0) | (rng.random(attention_mask.shape) < 0.4)
        ignored[0, 1] = False
        return ignored

    some_texts = np.arange(texts) == 1
    if task == "pretraining":
        pairs = classes(2, some_texts)
        return {"labels": classes(config.vocab_size, some_tokens()), "next_sentence_label": pairs}
    if task == "masked_lm":
        return {"labels": classes(config.vocab_size, some_tokens())}
    if task == "token_classification":
        return {"labels": classes(config.num_labels, some_tokens())}
    if task == "question_answering":
        starts, ends = rng.integers(TOKENS, size=(2, texts))
        ends[0] = TOKENS + 1  # beyond the text: not counted
        return {"start_positions": starts, "end_positions": ends}
    if task == "sequence_classification" and config.problem_type == "regression":
        return {"labels": rng.standard_normal((texts, config.num_labels))}
    if task == "sequence_classification" and config.problem_type == "multi_label_classification":
        return {"labels": rng.integers(2, size=(texts, config.num_labels)).astype(float)}
    # next_sentence has two classes, and the choices of multiple_choice are two
    return {"labels": classes(config.num_labels if task == "sequence_classification" else 2, some_texts)}


# Dropping of the body's outputs is in every case; the activations and position types are spread over them.
CASES = (
    Case("embeddings", embeddings),
    Case("self-attention", partial(layer, part="self_attention")),
    Case("feed-forward", partial(layer, part="feed_forward")),
    Case("encoder layer", partial(layer, part="encoder_layer")),
    Case(
        "encoder layer (relative key)",
        partial(layer, part="encoder_layer", position_embedding_type="relative_key", hidden_act="gelu_new"),
    ),
    Case(
        "encoder layer (relative key and query)",
        partial(layer, part="encoder_layer", position_embedding_type="relative_key_query", hidden_act="silu"),
    ),
    Case("pooler", pooler),
    Case("body (ids)", partial(body, vectors=False)),
    Case("body (vectors)", partial(body, vectors=True)),
    Case("body (sinusoidal)", partial(body, vectors=False, position_embedding_type="sinusoidal")),
    Case("body (relative key)", partial(body, vectors=False, position_embedding_type="relative_key")),
    Case("pretraining (tied)", partial(task, task="pretraining")),
    Case(
        "pretraining (untied)",
        # An untied decoder has a bias of its own, and the one of the tied decoder is not used.
        partial(task, task="pretraining", zeros=("cls.predictions.bias",), tie_word_embeddings=False),
    ),
    Case("masked LM (all tokens scored)", partial(task, task="masked_lm", hidden_act="gelu_new")),
    Case("masked LM (labelled tokens scored)", partial(task, task="masked_lm", all_logits=False)),
    Case("next sentence", partial(task, task="next_sentence")),
    Case("sequence classification", partial(task, task="sequence_classification", num_labels=3)),
    Case(
        "sequence classification (multi-label)",
        partial(
            task, task="sequence_classification", num_labels=3, problem_type="multi_label_classification"
        ),
    ),
    Case(
        "sequence classification (regression)",
        partial(task, task="sequence_classification", num_labels=3, problem_type="regression"),
    ),
    Case("token classification", partial(task, task="token_classification", num_labels=5)),
    # A bias that is the same for all tokens, or for all choices, shifts scores that compete with each other.
    Case(
        "question answering",
        partial(
            task,
            task="question_answering",
            zeros=("qa_outputs.bias", "bert.encoder.layer.0.output.LayerNorm.bias"),
        ),
    ),
    Case("multiple choice", partial(task, task="multiple_choice", zeros=("classifier.bias",))),
)
