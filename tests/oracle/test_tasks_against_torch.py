"""Every task of random models against transformers and torch's autograd, in float64."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed (the extra 'oracle' has it)")
pytest.importorskip("transformers", reason="transformers is not installed (the extra 'oracle' has it)")

from npbert import Bert
from npbert.config import BertConfig
from npbert.ops.activations import ACTIVATIONS
from tests import models
from tests.models import LOSSES
from tests.oracle import huggingface
from tests.tolerances import GRADIENT_TORCH, HIDDEN_STATE_TORCH

pytestmark = pytest.mark.oracle

# Awkward and different in every field. Each is run with every loss, each time with other numbers.
SHAPES = {
    "a": {"hidden_size": 15, "num_attention_heads": 3, "num_hidden_layers": 2, "hidden_act": "gelu"},
    "no layers": {"hidden_size": 11, "num_attention_heads": 11, "num_hidden_layers": 0, "pad_token_id": None},
    "one head, three layers": {
        "hidden_size": 13,
        "num_attention_heads": 1,
        "num_hidden_layers": 3,
        "hidden_act": "gelu_new",
        "type_vocab_size": 1,
        "layer_norm_eps": 0.3,
    },
    "heads of width 1": {
        "hidden_size": 9,
        "num_attention_heads": 9,
        "num_hidden_layers": 1,
        "hidden_act": "silu",
        "pad_token_id": 22,
        "intermediate_size": 5,
    },
}


def config_of(**fields) -> BertConfig:
    sizes = {
        "vocab_size": 23,
        "hidden_size": 10,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "intermediate_size": 17,
        "max_position_embeddings": 14,
        "type_vocab_size": 3,
        "pad_token_id": 4,
        "layer_norm_eps": 1e-12,
    }
    return BertConfig(**(sizes | fields))


def draw(seed, config, task, texts=3, tokens=7, choices=2):
    """Parameters and arguments of one problem."""
    rng = np.random.default_rng(seed)
    params = models.random_params(rng, config, task, spread=0.4)
    inputs = models.random_inputs(rng, config, task, texts=texts, tokens=tokens, choices=choices)
    return rng, params, inputs


def check_gradients(config, task, params, arguments, record=None, least=5, **options):
    """Loss and every gradient; returns the worst relative error of a tensor."""
    bert = Bert(config, params, task=task)
    loss, grads = bert.loss_and_grads(**arguments, **options)
    expected_loss, expected = huggingface.loss_and_grads(
        huggingface.build(config, task, params), arguments, **options
    )
    assert sum(want is not None for want in expected.values()) >= least
    errors = huggingface.gradient_errors(config, task, grads, expected) | {
        "loss": huggingface.relative_error(loss, expected_loss)
    }
    worst = max(errors, key=errors.__getitem__)
    if record is not None:
        record("worst relative error", errors[worst])
    print(f"worst of {len(errors)}: {worst} {errors[worst]:.1e}")
    assert errors[worst] <= GRADIENT_TORCH, f"{worst} is off by {errors[worst]:.1e}"
    return errors[worst]


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("loss", LOSSES)
def test_loss_and_gradients(loss, shape, seed, record_property):
    task, fields = LOSSES[loss]
    config = config_of(**(SHAPES[shape] | fields))
    rng, params, inputs = draw(seed, config, task)
    labels = models.random_labels(rng, config, task, inputs["input_ids"].shape)
    check_gradients(config, task, params, inputs | labels, record_property)


@pytest.mark.parametrize("hidden_act", ACTIVATIONS)
def test_every_activation(hidden_act, record_property):
    """In the feed-forward layer and in the word scores, which both use it."""
    config = config_of(hidden_act=hidden_act)
    rng, params, inputs = draw(3, config, "masked_lm")
    labels = models.random_labels(rng, config, "masked_lm", inputs["input_ids"].shape)
    check_gradients(config, "masked_lm", params, inputs | labels, record_property)


@pytest.mark.parametrize("left_out", ["attention_mask", "token_type_ids"])
@pytest.mark.parametrize("task", ["pretraining", "multiple_choice"])
def test_what_is_left_out_is_filled_in(task, left_out):
    config = config_of()
    rng, params, inputs = draw(4, config, task)
    labels = models.random_labels(rng, config, task, inputs["input_ids"].shape)
    del inputs[left_out]
    check_gradients(config, task, params, inputs | labels)


@pytest.mark.parametrize("types_given", [True, False])
@pytest.mark.parametrize("task", ["pretraining", "token_classification", "multiple_choice"])
def test_word_vectors_in_the_place_of_ids(task, types_given):
    config = config_of()
    rng, params, inputs = draw(5, config, task)
    labels = models.random_labels(rng, config, task, inputs["input_ids"].shape)
    vectors = models.random_vectors(rng, config, inputs)
    if not types_given:
        del vectors["token_type_ids"]
    check_gradients(config, task, params, vectors | labels)


@pytest.mark.parametrize("rows", ["one for all", "one a text"])
@pytest.mark.parametrize("task", ["masked_lm", "next_sentence"])
def test_position_ids(task, rows):
    config = config_of()
    rng, params, inputs = draw(6, config, task)
    labels = models.random_labels(rng, config, task, inputs["input_ids"].shape)
    texts, tokens = inputs["input_ids"].shape
    shape = (1, tokens) if rows == "one for all" else (texts, tokens)
    positions = rng.integers(0, config.max_position_embeddings, shape)
    check_gradients(config, task, params, inputs | labels | {"position_ids": positions})


@pytest.mark.parametrize("start", [1, 7])
def test_past_key_values_length(start):
    config = config_of()
    rng, params, inputs = draw(7, config, "masked_lm")
    labels = models.random_labels(rng, config, "masked_lm", inputs["input_ids"].shape)
    check_gradients(config, "masked_lm", params, inputs | labels, past_key_values_length=start)


@pytest.mark.parametrize("given", ["labels", "next_sentence_label"])
def test_pretraining_with_one_of_its_labels(given):
    """transformers wants both, so the other one is ignored there, and the two losses are told apart."""
    config = config_of()
    rng, params, inputs = draw(8, config, "pretraining")
    labels = models.random_labels(rng, config, "pretraining", inputs["input_ids"].shape)
    single = "masked_lm" if given == "labels" else "next_sentence"
    names = huggingface.build(config, single, models.random_params(rng, config, single)).state_dict()
    part = {name: value for name, value in params.items() if name in names}
    loss, grads = Bert(config, params, task="pretraining").loss_and_grads(**inputs, **{given: labels[given]})
    expected_loss, expected = huggingface.loss_and_grads(
        huggingface.build(config, single, part), inputs | {"labels": labels[given]}
    )
    errors = huggingface.gradient_errors(config, single, {name: grads[name] for name in part}, expected)
    assert max(errors.values()) <= GRADIENT_TORCH
    assert huggingface.relative_error(loss, expected_loss) <= GRADIENT_TORCH
    others = set(grads) - set(part)
    assert others
    assert not any(np.any(grads[name]) for name in others)


@pytest.mark.parametrize("labels_dtype", [np.int64, np.float64])
def test_problem_type_is_guessed_alike(labels_dtype):
    """Without ``problem_type``, integers are classes and floating numbers are yes or no for each class."""
    config = config_of(num_labels=4)
    _, params, inputs = draw(9, config, "sequence_classification")
    labels = np.array([3, 0, 1]) if labels_dtype == np.int64 else np.eye(4)[[3, 0, 1]]
    arguments = inputs | {"labels": labels.astype(labels_dtype)}
    check_gradients(config, "sequence_classification", params, arguments)


def test_one_label_is_guessed_to_be_a_regression():
    config = config_of(num_labels=1)
    rng, params, inputs = draw(10, config, "sequence_classification")
    arguments = inputs | {"labels": rng.standard_normal(3)}
    check_gradients(config, "sequence_classification", params, arguments)


@pytest.mark.parametrize("seed", [0, 12345678901234567890 % 2**64])
@pytest.mark.parametrize("loss", LOSSES)
def test_dropout(loss, seed, record_property):
    """Masks at the same places, with the rate of each place, and the scale 1 / (1 - rate)."""
    task, fields = LOSSES[loss]
    rates = {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.2, "classifier_dropout": 0.4}
    config = config_of(num_hidden_layers=2, **rates, **fields)
    rng, params, inputs = draw(11, config, task)
    arguments = inputs | models.random_labels(rng, config, task, inputs["input_ids"].shape)
    check_gradients(config, task, params, arguments, record_property, dropout_seed=seed)


def test_dropout_of_the_classifier_is_by_default_the_hidden_rate():
    config = config_of(hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.0, classifier_dropout=None)
    rng, params, inputs = draw(12, config, "next_sentence")
    arguments = inputs | models.random_labels(rng, config, "next_sentence", inputs["input_ids"].shape)
    check_gradients(config, "next_sentence", params, arguments, dropout_seed=1)
    rng, params, inputs = draw(13, config, "token_classification")
    arguments = inputs | models.random_labels(rng, config, "token_classification", (3, 7))
    check_gradients(config, "token_classification", params, arguments, dropout_seed=1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("task", ["encoder", *models.TASKS_WITH_LOSS])
def test_outputs(task, shape, record_property):
    """Scores, hidden states, attentions and the pooler's output, padded places included."""
    config = config_of(**SHAPES[shape])
    _, params, inputs = draw(14, config, task)
    wanted = {"output_hidden_states": True, "output_attentions": True}
    found = Bert(config, params, task=task).forward(**inputs, **wanted)
    expected = huggingface.run(huggingface.build(config, task, params), inputs, **wanted)
    assert len(found.hidden_states) == config.num_hidden_layers + 1
    assert len(found.attentions) == config.num_hidden_layers
    errors = {}
    for name, want in expected.items():
        if isinstance(want, tuple) and not want:
            continue  # cross-attention, which there is none of; without layers, nothing is collected at all
        value = getattr(found, name)
        pairs = zip(value, want, strict=True) if isinstance(want, tuple) else [(value, want)]
        for index, (ours, theirs) in enumerate(pairs):
            errors[f"{name}[{index}]"] = huggingface.relative_error(ours, theirs.detach().numpy())
    worst = max(errors, key=errors.__getitem__)
    record_property("worst relative error", errors[worst])
    print(f"worst of {len(errors)}: {worst} {errors[worst]:.1e}")
    assert errors[worst] <= HIDDEN_STATE_TORCH, f"{worst} is off by {errors[worst]:.1e}"


def test_gradients_of_the_body_alone(record_property):
    """`Bert.vjp` with random gradients of both outputs, and the gradient of the word vectors."""
    config = config_of(num_hidden_layers=2)
    rng, params, inputs = draw(15, config, "encoder")
    vectors = models.random_vectors(rng, config, inputs)
    dhidden, dpooled = rng.standard_normal((3, 7, 10)), rng.standard_normal((3, 10))
    grads, dinputs_embeds = Bert(config, params, task="encoder").vjp(dhidden, dpooled, **vectors)

    torch = huggingface.torch
    model = huggingface.build(config, "encoder", params)
    leaf = torch.tensor(vectors["inputs_embeds"], requires_grad=True)
    tensors = {name: torch.tensor(value) for name, value in vectors.items()} | {"inputs_embeds": leaf}
    output = model(**tensors)
    torch.autograd.backward(
        [output.last_hidden_state, output.pooler_output], [torch.tensor(dhidden), torch.tensor(dpooled)]
    )
    expected = {
        name: None if parameter.grad is None else parameter.grad.numpy()
        for name, parameter in model.named_parameters()
    }
    errors = huggingface.gradient_errors(config, "encoder", grads, expected)
    errors["inputs_embeds"] = huggingface.relative_error(dinputs_embeds, leaf.grad.numpy())
    record_property("worst relative error", max(errors.values()))
    assert max(errors.values()) <= GRADIENT_TORCH
