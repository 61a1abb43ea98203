"""Every task of random models against transformers and torch's autograd, in float64."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed (the extra 'oracle' has it)")
pytest.importorskip("transformers", reason="transformers is not installed (the extra 'oracle' has it)")

from npbert import Bert
from npbert.ops.activations import ACTIVATIONS
from tests import models
from tests.models import LOSSES
from tests.oracle import huggingface
from tests.oracle.random_models import SHAPES, config_of, draw, draw_problem
from tests.tolerances import GRADIENT_TORCH, HIDDEN_STATE_TORCH

pytestmark = pytest.mark.oracle


@pytest.fixture
def report_worst(record_property):
    """Hold the worst of some errors against a budget, and leave it in the report (pytest -rP shows it)."""

    def report(errors, budget):
        worst = max(errors, key=errors.__getitem__)
        print(f"worst of {len(errors)}: {worst} {errors[worst]:.1e}")
        record_property("worst relative error", errors[worst])
        assert errors[worst] <= budget, f"{worst} is off by {errors[worst]:.1e}; {budget:.0e} is allowed"

    return report


@pytest.fixture
def check_gradients(report_worst):
    """Compare the loss and every gradient."""

    def check(config, task, params, arguments, **options):
        errors = huggingface.loss_and_gradient_errors(config, task, params, arguments, **options)
        report_worst(errors, GRADIENT_TORCH)

    return check


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("loss", LOSSES)
def test_loss_and_gradients(loss, shape, seed, check_gradients):
    check_gradients(*draw_problem(loss, shape, seed))


@pytest.mark.parametrize("hidden_act", ACTIVATIONS)
def test_every_activation(hidden_act, check_gradients):
    """In the feed-forward layer and in the word scores, which both use it."""
    config = config_of(hidden_act=hidden_act)
    rng, params, inputs = draw(3, config, "masked_lm")
    labels = models.random_labels(rng, config, "masked_lm", inputs["input_ids"].shape)
    check_gradients(config, "masked_lm", params, inputs | labels)


@pytest.mark.parametrize("left_out", ["attention_mask", "token_type_ids"])
@pytest.mark.parametrize("task", ["pretraining", "multiple_choice"])
def test_what_is_left_out_is_filled_in(task, left_out, check_gradients):
    config = config_of()
    rng, params, inputs = draw(4, config, task)
    labels = models.random_labels(rng, config, task, inputs["input_ids"].shape)
    del inputs[left_out]
    check_gradients(config, task, params, inputs | labels)


@pytest.mark.parametrize("types_given", [True, False])
@pytest.mark.parametrize("task", ["pretraining", "token_classification", "multiple_choice"])
def test_word_vectors_in_the_place_of_ids(task, types_given, check_gradients):
    config = config_of()
    rng, params, inputs = draw(5, config, task)
    labels = models.random_labels(rng, config, task, inputs["input_ids"].shape)
    vectors = models.random_vectors(rng, config, inputs)
    if not types_given:
        del vectors["token_type_ids"]
    check_gradients(config, task, params, vectors | labels)


@pytest.mark.parametrize("rows", ["one for all", "one a text"])
@pytest.mark.parametrize("task", ["masked_lm", "next_sentence"])
def test_position_ids(task, rows, check_gradients):
    config = config_of()
    rng, params, inputs = draw(6, config, task)
    labels = models.random_labels(rng, config, task, inputs["input_ids"].shape)
    texts, tokens = inputs["input_ids"].shape
    shape = (1, tokens) if rows == "one for all" else (texts, tokens)
    positions = rng.integers(0, config.max_position_embeddings, shape)
    check_gradients(config, task, params, inputs | labels | {"position_ids": positions})


@pytest.mark.parametrize("start", [1, 7])
def test_past_key_values_length(start, check_gradients):
    config = config_of()
    rng, params, inputs = draw(7, config, "masked_lm")
    labels = models.random_labels(rng, config, "masked_lm", inputs["input_ids"].shape)
    check_gradients(config, "masked_lm", params, inputs | labels, past_key_values_length=start)


@pytest.mark.parametrize("given", ["labels", "next_sentence_label"])
def test_pretraining_with_one_of_its_labels(given, report_worst):
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
    errors["loss"] = huggingface.relative_error(loss, expected_loss)
    report_worst(errors, GRADIENT_TORCH)
    others = set(grads) - set(part)
    assert others
    assert not any(np.any(grads[name]) for name in others)


@pytest.mark.parametrize("labels_dtype", [np.int64, np.float64])
def test_problem_type_is_guessed_alike(labels_dtype, check_gradients):
    """Without ``problem_type``, integers are classes and floating numbers are yes or no for each class."""
    config = config_of(num_labels=4)
    _, params, inputs = draw(9, config, "sequence_classification")
    labels = np.array([3, 0, 1]) if labels_dtype == np.int64 else np.eye(4)[[3, 0, 1]]
    arguments = inputs | {"labels": labels.astype(labels_dtype)}
    check_gradients(config, "sequence_classification", params, arguments)


def test_one_label_is_guessed_to_be_a_regression(check_gradients):
    config = config_of(num_labels=1)
    rng, params, inputs = draw(10, config, "sequence_classification")
    arguments = inputs | {"labels": rng.standard_normal(3)}
    check_gradients(config, "sequence_classification", params, arguments)


@pytest.mark.parametrize("seed", [0, 12345678901234567890 % 2**64])
@pytest.mark.parametrize("loss", LOSSES)
def test_dropout(loss, seed, check_gradients):
    """Masks at the same places, with the rate of each place, and the scale 1 / (1 - rate)."""
    task, fields = LOSSES[loss]
    rates = {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.2, "classifier_dropout": 0.4}
    config = config_of(num_hidden_layers=2, **rates, **fields)
    rng, params, inputs = draw(11, config, task)
    arguments = inputs | models.random_labels(rng, config, task, inputs["input_ids"].shape)
    check_gradients(config, task, params, arguments, dropout_seed=seed)


def test_dropout_of_the_classifier_is_by_default_the_hidden_rate(check_gradients):
    config = config_of(hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.0, classifier_dropout=None)
    rng, params, inputs = draw(12, config, "next_sentence")
    arguments = inputs | models.random_labels(rng, config, "next_sentence", inputs["input_ids"].shape)
    check_gradients(config, "next_sentence", params, arguments, dropout_seed=1)
    rng, params, inputs = draw(13, config, "token_classification")
    arguments = inputs | models.random_labels(rng, config, "token_classification", (3, 7))
    check_gradients(config, "token_classification", params, arguments, dropout_seed=1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("task", ["encoder", *models.TASKS_WITH_LOSS])
def test_outputs(task, shape, report_worst):
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
    report_worst(errors, HIDDEN_STATE_TORCH)


def test_gradients_of_the_body_alone(report_worst):
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
    report_worst(errors, GRADIENT_TORCH)
