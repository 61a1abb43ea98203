"""The task heads: values by independent formulas, backward passes by the complex step, whole and in part."""

import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npbert import cpu, gradcheck, ops
from npbert.heads import HEADS, HeadOptions, task_backward, task_forward, tokens_that_are_read
from npbert.inputs import prepare_inputs
from npbert.labels import LABELS_OF_TASK, Labels, prepare_labels
from npbert.model import ModelOutput, encoder_forward, pooler_forward
from npbert.ops.dropout import SITE_CLASSIFIER
from npbert.params import parameter_shapes, subset
from tests import models, oracles
from tests.comparisons import assert_identical
from tests.models import LOSSES, TASKS_WITH_LOSS
from tests.strategies import flags, seeds
from tests.tolerances import COMPLEX_STEP, REORDERED

WORDS = "bert.embeddings.word_embeddings.weight"
DECODER = "cls.predictions.decoder.weight"
reductions = st.sampled_from(["mean", "sum"])
dropout_seeds = st.none() | st.integers(0, 2**64 - 1)


def config_of(loss, **fields):
    """Without padding id: the padding word is held constant, which the complex step cannot know."""
    _, own = LOSSES[loss]
    rates = {
        "hidden_dropout_prob": 0.25,
        "attention_probs_dropout_prob": 0.15,
        "classifier_dropout": 0.35,
        "pad_token_id": None,
    }
    return models.tiny_config(**(rates | own | fields))


class Problem:
    """A tiny model, a batch and its labels."""

    def __init__(self, loss, seed=0, *, vectors=False, **fields):
        self.rng = np.random.default_rng(seed)
        self.task = LOSSES[loss][0]
        self.config = config_of(loss, **fields)
        self.params = models.random_params(self.rng, self.config, self.task)
        self.arguments = models.random_inputs(self.rng, self.config, self.task, tokens=4)
        shape = self.arguments["input_ids"].shape
        self.labels = models.random_labels(self.rng, self.config, self.task, shape)
        if vectors:
            self.arguments = models.random_vectors(self.rng, self.config, self.arguments)
        self.inputs = prepare_inputs(self.config, self.task, np.float64, **self.arguments)

    def options(self, **options):
        return HeadOptions(choices=self.inputs.choices, **options)

    def prepared(self, **changed):
        return prepare_labels(self.config, self.task, np.float64, self.inputs, **(self.labels | changed))

    def forward(self, *, params=None, inputs=None, labels=None, **options):
        return task_forward(
            self.params if params is None else params,
            self.config,
            self.task,
            self.inputs if inputs is None else inputs,
            self.prepared() if labels is None else labels,
            self.options(**options),
            ops,
        )

    def loss_and_grads(self, **changed):
        _, head, cache = self.forward(**changed)
        _, grads = task_backward(np.float64(1), cache, self.params, self.config, self.task, ops)
        return head.loss, grads

    def zeros(self):
        """Parameters whose gradient is 0, by construction or because nothing is computed from them."""
        zeros = [
            *models.structural_zeros(self.config, self.task),
            *models.unused_params(self.config, self.task),
        ]
        if self.inputs.input_ids is None and not self.is_tied:
            zeros.append(WORDS)
        return zeros

    @property
    def is_tied(self):
        """Whether the word embedding is the decoder too."""
        return "cls.predictions.bias" in self.params and DECODER not in self.params


# --- against the complex step ----------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
@settings(max_examples=3)
@given(
    seed=seeds,
    layers=st.integers(0, 2),
    positions=st.sampled_from(["absolute", "relative_key", "relative_key_query", "sinusoidal"]),
    vectors=flags,
    all_logits=flags,
    reduction=reductions,
    key=dropout_seeds,
)
def test_whole_model_backward(loss, seed, layers, positions, vectors, all_logits, reduction, key):
    """From the loss to every parameter of body and head, and to the word vectors."""
    fields = {"num_hidden_layers": layers, "position_embedding_type": positions, "intermediate_size": 5}
    if layers == 0 and LOSSES[loss][0] == "question_answering":
        fields["hidden_dropout_prob"] = 0.0  # or the last bias would be dropped: no structural zero
    problem = Problem(loss, seed, vectors=vectors, **fields)
    options = {"dropout_seed": key, "reduction": reduction, "all_logits": all_logits}

    def forward(params, inputs_embeds):
        given = problem.inputs._replace(inputs_embeds=inputs_embeds)
        _, head, cache = problem.forward(params=params, inputs=given, **options)
        return head.loss, cache

    def backward(dloss, cache):
        dvectors, grads = task_backward(dloss, cache, problem.params, problem.config, problem.task, ops)
        assert list(grads) == list(problem.params)
        return grads, dvectors

    gradcheck.check(
        forward,
        backward,
        (problem.params, problem.inputs.inputs_embeds),
        oracle="complex_step",
        rtol=COMPLEX_STEP,
        structural_zeros=problem.zeros(),
    ).raise_if_failed()


@pytest.mark.parametrize("loss", LOSSES)
@settings(max_examples=4)
@given(seed=seeds, reduction=reductions, key=dropout_seeds)
def test_head_alone_backward(loss, seed, reduction, key):
    """What a head passes on to the tokens and to the pooler."""
    problem = Problem(loss, seed)
    head_forward, head_backward = HEADS[problem.task]
    params = {n: v for n, v in problem.params.items() if not n.startswith("bert.")}
    if problem.is_tied:
        params[WORDS] = problem.params[WORDS]
    batch, tokens = problem.inputs.shape
    hidden = problem.rng.standard_normal((batch, tokens, 6))
    pooled = problem.rng.standard_normal((batch, 6))
    options = problem.options(dropout_seed=key, reduction=reduction, all_logits=False)
    seen = {}

    def forward(params, hidden, pooled):
        body = ModelOutput(hidden, pooled, None, None)
        head, cache = head_forward(params, problem.config, body, problem.prepared(), options, ops)
        return head.loss, cache

    def backward(dloss, cache):
        found = head_backward(dloss, cache, problem.config, ops)
        seen.update(hidden=found.dlast_hidden_state, pooled=found.dpooler_output)
        return found.grads, found.dlast_hidden_state, found.dpooler_output

    uses_tokens = problem.task in ("pretraining", "masked_lm", "token_classification", "question_answering")
    uses_pooler = problem.task not in ("masked_lm", "token_classification", "question_answering")
    zeros = [z for z in problem.zeros() if not z.startswith(("*", "bert."))]
    zeros += [] if uses_tokens else ["hidden"]
    zeros += [] if uses_pooler else ["pooled"]
    gradcheck.check(
        forward,
        backward,
        (params, hidden, pooled),
        oracle="complex_step",
        rtol=COMPLEX_STEP,
        structural_zeros=zeros,
    ).raise_if_failed()
    assert (seen["hidden"] is not None) == uses_tokens
    assert (seen["pooled"] is not None) == uses_pooler


# --- values ----------------------------------------------------------------------------------------------


def body_of(problem):
    body, head, _ = problem.forward()
    return body, head.loss, head.logits


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("loss", LOSSES)
def test_loss_is_that_of_its_scores(loss, reduction):
    """By loops in plain Python, from the scores that the head returns."""
    problem = Problem(loss, 1)
    _, head, _ = problem.forward(reduction=reduction)
    labels = problem.labels

    def cross_entropy(logits, labels):
        rows = logits.reshape(-1, logits.shape[-1])
        return oracles.cross_entropy_loop(rows, np.ravel(labels), -100, reduction)

    if problem.task == "pretraining":
        want = cross_entropy(head.logits["prediction_logits"], labels["labels"])
        want += cross_entropy(head.logits["seq_relationship_logits"], labels["next_sentence_label"])
    elif problem.task == "question_answering":
        tokens = problem.inputs.shape[1]
        ends = np.where(labels["end_positions"] < tokens, labels["end_positions"], -100)
        assert (ends == -100).any()
        want = cross_entropy(head.logits["start_logits"], labels["start_positions"])
        want = (want + cross_entropy(head.logits["end_logits"], ends)) / 2
    elif problem.config.problem_type == "regression":
        want = oracles.mse_loop(head.logits["logits"], labels["labels"], reduction)
    elif problem.config.problem_type == "multi_label_classification":
        want = oracles.bce_with_logits_mpmath(head.logits["logits"], labels["labels"], reduction)
    else:
        want = cross_entropy(head.logits["logits"], labels["labels"])
    assert head.loss.shape == ()
    np.testing.assert_allclose(head.loss, want, rtol=REORDERED)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_every_answer_counts_for_start_and_end(reduction):
    """Of a single answer the mean is the sum; here both texts have one."""
    problem = Problem("question_answering", 16)
    labels = problem.prepared(start_positions=np.array([0, 2]), end_positions=np.array([3, 1]))
    _, head, _ = problem.forward(labels=labels, reduction=reduction)
    start = oracles.cross_entropy_loop(head.logits["start_logits"], np.array([0, 2]), -100, reduction)
    end = oracles.cross_entropy_loop(head.logits["end_logits"], np.array([3, 1]), -100, reduction)
    np.testing.assert_allclose(head.loss, (start + end) / 2, rtol=REORDERED)


def linear(problem, x, name):
    return x @ problem.params[f"{name}.weight"].T + problem.params[f"{name}.bias"]


def test_scores_of_linear_heads():
    """Each looks at what it should look at: the pooler, the tokens, or one text of a question."""
    for loss, name, field in (
        ("next_sentence", "cls.seq_relationship", "pooler_output"),
        ("classes", "classifier", "pooler_output"),
        ("regression", "classifier", "pooler_output"),
        ("token_classification", "classifier", "last_hidden_state"),
    ):
        problem = Problem(loss, 2)
        body, _, logits = body_of(problem)
        want = linear(problem, getattr(body, field), name)
        np.testing.assert_allclose(logits["logits"], want, rtol=1e-12, err_msg=loss)
    problem = Problem("multiple_choice", 2)
    body, _, logits = body_of(problem)
    want = linear(problem, body.pooler_output, "classifier").reshape(models.TEXTS, models.CHOICES)
    np.testing.assert_allclose(logits["logits"], want, rtol=1e-12)
    problem = Problem("question_answering", 2)
    body, _, logits = body_of(problem)
    want = linear(problem, body.last_hidden_state, "qa_outputs")
    np.testing.assert_allclose(logits["start_logits"], want[..., 0], rtol=1e-12)
    np.testing.assert_allclose(logits["end_logits"], want[..., 1], rtol=1e-12)


@pytest.mark.parametrize("loss", ["masked_lm", "masked_lm untied", "pretraining", "pretraining untied"])
def test_scores_of_words(loss):
    """Transform, then one score a row of the decoder; the untied decoder has a bias of its own."""
    problem = Problem(loss, 3, layer_norm_eps=0.3, hidden_act="gelu")
    params = problem.params
    body, _, logits = body_of(problem)
    dense = linear(problem, body.last_hidden_state, "cls.predictions.transform.dense")
    activated = np.vectorize(oracles.math.erf)(dense / np.sqrt(2)) * dense / 2 + dense / 2
    centred = activated - activated.mean(axis=-1, keepdims=True)
    normalised = centred / np.sqrt(activated.var(axis=-1, keepdims=True) + 0.3)
    normalised = normalised * params["cls.predictions.transform.LayerNorm.weight"]
    normalised = normalised + params["cls.predictions.transform.LayerNorm.bias"]
    if not problem.is_tied:
        want = normalised @ params[DECODER].T + params["cls.predictions.decoder.bias"]
    else:
        want = normalised @ params[WORDS].T + params["cls.predictions.bias"]
    name = "prediction_logits" if problem.task == "pretraining" else "logits"
    assert logits[name].shape == (*problem.inputs.shape, 11)
    np.testing.assert_allclose(logits[name], want, rtol=1e-11, atol=1e-12)


def test_choices_of_a_question_stand_together():
    """logits[b, c] is the score of text c of question b, run alone."""
    problem = Problem("multiple_choice", 4)
    _, _, logits = body_of(problem)
    for question in range(models.TEXTS):
        for choice in range(models.CHOICES):
            alone = {n: v[question : question + 1, choice : choice + 1] for n, v in problem.arguments.items()}
            inputs = prepare_inputs(problem.config, "multiple_choice", np.float64, **alone)
            _, head, _ = task_forward(
                problem.params, problem.config, "multiple_choice", inputs, Labels(), HeadOptions(), ops
            )
            score = head.logits["logits"]
            np.testing.assert_allclose(score, [[logits["logits"][question, choice]]], rtol=1e-11)


def test_class_0_is_the_next_sentence():
    """Label 0 is a pair that follows: raising the score of class 0 makes it cheaper, and label 1 dearer."""
    problem = Problem("next_sentence", 5)
    raised = problem.params | {"cls.seq_relationship.bias": np.array([5.0, 0.0])}
    lowered = problem.params | {"cls.seq_relationship.bias": np.array([-5.0, 0.0])}
    for label, cheaper in ((0, raised), (1, lowered)):
        labels = problem.prepared(labels=np.full(models.TEXTS, label))
        losses = [problem.forward(params=params, labels=labels)[1].loss for params in (raised, lowered)]
        assert problem.forward(params=cheaper, labels=labels)[1].loss == min(losses)
        assert max(losses) > 2 > min(losses)


# --- labels that do not count ----------------------------------------------------------------------------


def ignored(labels):
    """The same labels, none of them counted."""
    far = {"start_positions": 99, "end_positions": 99}
    return {name: np.full_like(value, far.get(name, -100)) for name, value in labels.items()}


@pytest.mark.parametrize("all_logits", [True, False])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(
    "loss", [x for x in LOSSES if x not in ("several classes", "regression", "regressions")]
)
def test_no_label_at_all_is_no_loss(loss, reduction, all_logits):
    """0 and exactly 0, where a mean over nothing would be NaN."""
    problem = Problem(loss, 6)
    labels = problem.prepared(**ignored(problem.labels))
    found, grads = problem.loss_and_grads(labels=labels, reduction=reduction, all_logits=all_logits)
    assert found == 0
    assert list(grads) == list(problem.params)
    for name, grad in grads.items():
        np.testing.assert_array_equal(grad, np.zeros_like(problem.params[name]), err_msg=name)


@pytest.mark.parametrize("loss", ["masked_lm", "token_classification", "classes", "next_sentence"])
def test_ignored_places_do_not_count(loss):
    """The mean over a batch is the mean over its labelled places, each alone."""
    problem = Problem(loss, 7)
    labels = problem.labels["labels"]
    places = np.argwhere(labels != -100)
    assert 0 < len(places) < labels.size
    losses, gradients = [], []
    for place in places:
        single = np.full_like(labels, -100)
        single[tuple(place)] = labels[tuple(place)]
        found, grads = problem.loss_and_grads(labels=problem.prepared(labels=single))
        losses.append(found)
        gradients.append(grads)
    found, grads = problem.loss_and_grads()
    np.testing.assert_allclose(found, np.mean(losses), rtol=1e-12)
    for name, grad in grads.items():
        terms = np.array([one[name] for one in gradients])
        np.testing.assert_allclose(
            grad, terms.mean(axis=0), rtol=1e-9, atol=1e-13 * (np.abs(terms).max() + 1), err_msg=name
        )


@pytest.mark.parametrize("loss", LOSSES)
def test_sum_is_the_mean_times_how_many_count(loss):
    problem = Problem(loss, 8)
    mean, mean_grads = problem.loss_and_grads(reduction="mean")
    total, total_grads = problem.loss_and_grads(reduction="sum")
    if problem.task in ("pretraining", "question_answering"):
        return _sum_of_two_losses(problem, total)
    labels = problem.labels["labels"]
    count = int((labels != -100).sum())
    np.testing.assert_allclose(total, mean * count, rtol=1e-13)
    for name, grad in total_grads.items():
        np.testing.assert_allclose(
            grad, mean_grads[name] * count, rtol=1e-9, atol=1e-13 * (np.abs(grad).max() + 1), err_msg=name
        )


def _sum_of_two_losses(problem, total):
    """Both losses are sums: those of the texts alone, added up."""
    parts = 0.0
    for text in range(models.TEXTS):
        inputs = prepare_inputs(
            problem.config,
            problem.task,
            np.float64,
            **{name: value[text : text + 1] for name, value in problem.arguments.items()},
        )
        labels = {name: value[text : text + 1] for name, value in problem.labels.items()}
        prepared = prepare_labels(problem.config, problem.task, np.float64, inputs, **labels)
        parts += problem.forward(inputs=inputs, labels=prepared, reduction="sum")[1].loss
    np.testing.assert_allclose(total, parts, rtol=1e-12)


@pytest.mark.parametrize("given", ["labels", "next_sentence_label"])
def test_pretraining_with_one_of_its_labels(given):
    """The loss of that task alone; the other head gets exactly zero gradient."""
    problem = Problem("pretraining", 9)
    both, _ = problem.loss_and_grads()
    other = "next_sentence_label" if given == "labels" else "labels"
    alone, grads = problem.loss_and_grads(labels=problem.prepared(**{other: None}))
    rest, _ = problem.loss_and_grads(labels=problem.prepared(**{given: None}))
    np.testing.assert_allclose(alone + rest, both, rtol=1e-13)
    unused = "cls.seq_relationship" if given == "labels" else "cls.predictions"
    for name, grad in grads.items():
        if name.startswith(unused) or (given == "labels" and "pooler" in name):
            assert not np.any(grad), name
    used = "cls.predictions.bias" if given == "labels" else "bert.pooler.dense.weight"
    assert np.any(grads[used])


def test_answer_behind_the_text_does_not_count():
    problem = Problem("question_answering", 10)
    tokens = problem.inputs.shape[1]
    within = {"start_positions": np.array([1, 2]), "end_positions": np.array([tokens - 1, 3])}
    behind = {"start_positions": np.array([1, tokens]), "end_positions": np.array([tokens - 1, tokens + 7])}
    first = {name: value[:1] for name, value in within.items()}
    inputs = prepare_inputs(
        problem.config, problem.task, np.float64, **{n: v[:1] for n, v in problem.arguments.items()}
    )
    alone, _ = problem.loss_and_grads(
        inputs=inputs, labels=prepare_labels(problem.config, problem.task, np.float64, inputs, **first)
    )
    found, _ = problem.loss_and_grads(labels=problem.prepared(**behind))
    np.testing.assert_allclose(found, alone, rtol=1e-12)
    both, _ = problem.loss_and_grads(labels=problem.prepared(**within))
    assert abs(both - alone) > 1e-3


# --- scores only where a label asks ----------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["masked_lm", "masked_lm untied", "pretraining"])
@pytest.mark.parametrize("labelled", ["some", "all"])
def test_scoring_only_labelled_words_changes_nothing(loss, labelled):
    problem = Problem(loss, 11)
    changed = {}
    if labelled == "all":
        changed["labels"] = problem.rng.integers(0, 11, problem.inputs.shape)
    labels = problem.prepared(**changed)
    _, every, _ = problem.forward(labels=labels, all_logits=True)
    _, some, _ = problem.forward(labels=labels, all_logits=False)
    name = "prediction_logits" if problem.task == "pretraining" else "logits"
    places = labels.labels != -100
    assert places.all() == (labelled == "all")
    assert every.logits[name].shape == (*problem.inputs.shape, 11)
    assert some.logits[name].shape == (places.sum(), 11)
    np.testing.assert_allclose(some.logits[name], every.logits[name][places], rtol=1e-12, atol=1e-13)

    loss_of_all, grads_of_all = problem.loss_and_grads(labels=labels, all_logits=True)
    loss_of_some, grads_of_some = problem.loss_and_grads(labels=labels, all_logits=False)
    np.testing.assert_allclose(loss_of_some, loss_of_all, rtol=1e-13)
    for name, grad in grads_of_some.items():
        scale = np.abs(grads_of_all[name]).max() + 1
        np.testing.assert_allclose(grad, grads_of_all[name], rtol=0, atol=1e-13 * scale, err_msg=name)


def test_only_labelled_words_are_scored():
    """The decoder, most of the work, sees one row a label."""
    problem = Problem("masked_lm", 12)
    rows = []

    def spy(x, weight, bias):
        if len(weight) == problem.config.vocab_size:
            rows.append(x.shape)
        return ops.linear_forward(x, weight, bias)

    spying = types.SimpleNamespace(**(vars(ops) | {"linear_forward": spy}))
    options = problem.options(all_logits=False)
    task_forward(
        problem.params, problem.config, "masked_lm", problem.inputs, problem.prepared(), options, spying
    )
    assert rows == [((problem.labels["labels"] != -100).sum(), 6)]


@pytest.mark.parametrize("loss", ["masked_lm", "masked_lm untied", "pretraining", "pretraining untied"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("dloss", [1.0, -2.5])
def test_an_engine_may_compute_the_decoders_loss_at_once(loss, reduction, dloss):
    """The word scores are then nowhere as a whole; loss and gradients, twice over, are the same."""
    problem = Problem(loss, 15)
    options = problem.options(reduction=reduction, all_logits=False)
    results = []
    for engine in (ops, cpu):
        arguments = (problem.params, problem.config, problem.task)
        _, head, cache = task_forward(*arguments, problem.inputs, problem.prepared(), options, engine)
        name = "prediction_logits" if problem.task == "pretraining" else "logits"
        assert (head.logits[name] is None) == (engine is cpu)
        for _ in range(2):
            _, grads = task_backward(np.float64(dloss), cache, *arguments, engine)
            results.append((head.loss, grads))
    (expected, expected_grads), *others = results
    for found, grads in others:
        np.testing.assert_allclose(found, expected, rtol=1e-13)
        assert list(grads) == list(expected_grads)
        for name, grad in grads.items():
            scale = np.abs(expected_grads[name]).max() + 1
            np.testing.assert_allclose(grad, expected_grads[name], rtol=0, atol=1e-12 * scale, err_msg=name)


# --- tokens that are read --------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
def test_the_loss_depends_on_the_tokens_that_are_read_and_on_no_other(loss):
    problem = Problem(loss, 16)
    labels = problem.prepared()
    read = tokens_that_are_read(problem.task, problem.inputs, labels)
    if problem.task == "question_answering":
        assert read is None
        return
    assert read.shape == problem.inputs.shape
    assert 0 < read.sum() < read.size
    assert read.dtype == bool
    body, head, _ = problem.forward(labels=labels, all_logits=False)
    pooler = subset(problem.params, "bert.pooler.")

    def loss_of(hidden):
        pooled = pooler_forward(pooler, hidden, ops)[0] if pooler else None
        changed = body._replace(last_hidden_state=hidden, pooler_output=pooled)
        options = problem.options(all_logits=False)
        output, _ = HEADS[problem.task][0](problem.params, problem.config, changed, labels, options, ops)
        return output.loss

    hidden = body.last_hidden_state
    noise = problem.rng.normal(size=hidden.shape)
    assert loss_of(hidden) == head.loss
    assert loss_of(np.where(read[..., None], hidden, noise)) == head.loss
    assert abs(loss_of(np.where(read[..., None], noise, hidden)) - head.loss) > 1e-6


def test_the_body_is_told_which_tokens_are_read_where_only_the_loss_is_wanted():
    problem = Problem("token_classification", 17)
    told = []

    def spy(params, config, hidden, key_mask, read_mask, *others):
        told.append(read_mask)
        return encoder_forward(params, config, hidden, key_mask, read_mask, *others)

    spying = types.SimpleNamespace(**(vars(ops) | {"encoder_forward": spy}))
    for all_logits in (True, False):
        options = problem.options(all_logits=all_logits)
        arguments = (problem.params, problem.config, problem.task, problem.inputs, problem.prepared())
        task_forward(*arguments, options, spying)
    assert told[0] is None
    np.testing.assert_array_equal(told[1], problem.labels["labels"] != -100)


# --- the tied decoder ------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["masked_lm", "pretraining"])
def test_tied_table_gets_both_gradients(task):
    """Tied is untied with equal tables, and the gradients of the two added."""
    tied = Problem(task, 13)
    untied = Problem(f"{task} untied", 13)
    untied.params = tied.params | {
        DECODER: tied.params[WORDS],
        "cls.predictions.decoder.bias": tied.params["cls.predictions.bias"],
    }
    untied.labels, untied.inputs = tied.labels, tied.inputs
    loss, grads = tied.loss_and_grads()
    expected_loss, expected = untied.loss_and_grads()
    assert loss == expected_loss
    assert np.any(expected[WORDS])
    assert np.any(expected[DECODER])
    np.testing.assert_array_equal(grads[WORDS], expected[WORDS] + expected[DECODER])
    np.testing.assert_array_equal(grads["cls.predictions.bias"], expected["cls.predictions.decoder.bias"])
    assert not np.any(expected["cls.predictions.bias"])


def test_padding_word_gets_the_gradient_of_the_decoder_alone():
    problem = Problem("masked_lm", 14, pad_token_id=1)
    assert (problem.inputs.input_ids == 1).any()
    _, grads = problem.loss_and_grads()
    untied = Problem("masked_lm untied", 14, pad_token_id=1)
    untied.params = problem.params | {
        DECODER: problem.params[WORDS],
        "cls.predictions.decoder.bias": problem.params["cls.predictions.bias"],
    }
    untied.labels, untied.inputs = problem.labels, problem.inputs
    _, expected = untied.loss_and_grads()
    assert not np.any(expected[WORDS][1])
    np.testing.assert_array_equal(grads[WORDS][1], expected[DECODER][1])
    assert np.any(grads[WORDS][1])


# --- the rest --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["classes", "token_classification", "multiple_choice"])
@pytest.mark.parametrize(("classifier_dropout", "rate"), [(0.35, 0.35), (None, 0.25), (0.0, 0.0)])
def test_dropout_before_the_classifier(loss, classifier_dropout, rate):
    """Its own rate where there is one, at its own site."""
    problem = Problem(loss, 15, classifier_dropout=classifier_dropout)
    drawn = []

    def spy(shape, rate, seed, layer, site, xp):
        drawn.append((shape, rate, seed, layer, site))
        return ops.dropout_keep_mask(shape, rate, seed, layer, site, xp)

    spying = types.SimpleNamespace(**(vars(ops) | {"dropout_keep_mask": spy}))
    options = problem.options(dropout_seed=9)
    body, _, _ = task_forward(
        problem.params, problem.config, problem.task, problem.inputs, problem.prepared(), options, spying
    )
    seen = body.last_hidden_state if loss == "token_classification" else body.pooler_output
    at_head = [draw for draw in drawn if draw[4] == SITE_CLASSIFIER]
    assert at_head == ([(seen.shape, rate, 9, 0, SITE_CLASSIFIER)] if rate else [])
    assert len(drawn) == 4 + len(at_head)


@pytest.mark.parametrize("loss", ["classes", "token_classification", "multiple_choice"])
def test_the_classifier_sees_what_dropout_left(loss):
    problem = Problem(loss, 15)
    body, head, _ = problem.forward(dropout_seed=9)
    seen = body.last_hidden_state if loss == "token_classification" else body.pooler_output
    keep = ops.dropout_keep_mask(seen.shape, 0.35, 9, 0, SITE_CLASSIFIER)
    want = linear(problem, np.where(keep, seen / (1 - 0.35), 0), "classifier")
    np.testing.assert_allclose(head.logits["logits"], want.reshape(head.logits["logits"].shape), rtol=1e-11)


@pytest.mark.parametrize("loss", LOSSES)
def test_without_labels_there_are_scores_and_no_loss(loss):
    problem = Problem(loss, 16)
    _, head, _ = problem.forward(labels=Labels())
    _, labelled, _ = problem.forward()
    assert head.loss is None
    assert labelled.loss is not None
    for name, logits in labelled.logits.items():
        assert_identical(head.logits[name], logits, name)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_is_proportional_to_that_of_the_loss(loss):
    problem = Problem(loss, 17)
    _, _, cache = problem.forward()
    arguments = (cache, problem.params, problem.config, problem.task, ops)
    _, once = task_backward(np.float64(1), *arguments)
    _, fourfold = task_backward(np.float64(-4), *arguments)  # a power of two: exact
    for name, grad in fourfold.items():
        np.testing.assert_array_equal(grad, -4 * once[name], err_msg=name)


@pytest.mark.parametrize("hidden_states", [False, True])
@pytest.mark.parametrize("attentions", [False, True])
def test_body_returns_what_is_asked_for(hidden_states, attentions):
    problem = Problem("classes", 17)
    arguments = (problem.params, problem.config, problem.task, problem.inputs, problem.prepared())
    body, _, _ = task_forward(*arguments, problem.options(), ops, hidden_states, attentions)
    assert (body.hidden_states is not None) == hidden_states
    assert (body.attentions is not None) == attentions


def test_no_cache_no_way_back():
    problem = Problem("masked_lm", 18)
    _, _, cache = task_forward(
        problem.params,
        problem.config,
        "masked_lm",
        problem.inputs,
        problem.prepared(),
        problem.options(),
        ops,
        keep_cache=False,
    )
    with pytest.raises(ValueError, match="keep_cache=False"):
        task_backward(np.float64(1), cache, problem.params, problem.config, "masked_lm", ops)


def test_every_task_is_here():
    assert {task for task, _ in LOSSES.values()} == set(TASKS_WITH_LOSS) == set(HEADS)
    assert set(LABELS_OF_TASK) == {*TASKS_WITH_LOSS, "encoder"}
    for loss, (task, _) in LOSSES.items():
        assert set(Problem(loss).params) == set(parameter_shapes(config_of(loss), task))
