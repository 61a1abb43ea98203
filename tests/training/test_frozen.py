"""Feature-based use: features of an encoder that stays as it is, and the head that learns on them."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npbert
from npbert.bert import Bert
from npbert.data.labelled import EncodedExample
from npbert.tokenizer import WordPieceTokenizer
from npbert.training.frozen import (
    SETTINGS_NAME,
    WEIGHTS_NAME,
    FrozenClassifier,
    FrozenSettings,
    decays_in_head,
    is_frozen,
    load_frozen,
    train_head,
)
from npbert.training.frozen_head import head_forward, head_loss_and_grads, head_shapes
from npbert.training.optimizers import AdamW
from tests.models import random_params, tiny_config
from tests.tolerances import COMPLEX_STEP

TOKENIZER = WordPieceTokenizer(["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c", "d", "e", "f"])
PROBLEMS = ("single_label_classification", "multi_label_classification", "regression")
SETTINGS = [FrozenSettings(layers, pooling) for layers in ("last", "mix") for pooling in ("mean", "cls")]


def encoder(**fields) -> Bert:
    config = tiny_config(num_hidden_layers=2, num_labels=3, **fields)
    return Bert(config, random_params(np.random.default_rng(0), config, "encoder"), TOKENIZER, "encoder")


def random_examples(count: int, seed: int = 0) -> list[EncodedExample]:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 9, count)
    return [
        EncodedExample(rng.integers(0, 11, n, dtype=np.int32), rng.integers(0, 3, n).astype(np.int8))
        for n in lengths
    ]


def random_head(rng, config, layers):
    return {name: rng.normal(size=shape) for name, shape in head_shapes(config, layers).items()}


class TestFeatures:
    @pytest.mark.parametrize("settings", SETTINGS)
    @pytest.mark.parametrize("batch_tokens", [1, 20, 1000])
    def test_each_text_has_its_own(self, settings, batch_tokens):
        bert = encoder()
        examples = random_examples(7)
        seen = []
        found = FrozenClassifier(bert, settings).features(examples, batch_tokens, seen.append)
        assert sum(seen) == 7
        assert found.shape == (7, 3 if settings.layers == "mix" else 1, 6)
        for example, feature in zip(examples, found, strict=True):
            output = bert.forward(
                [example.input_ids], token_type_ids=[example.token_type_ids], output_hidden_states=True
            )
            states = output.hidden_states if settings.layers == "mix" else [output.last_hidden_state]
            for state, vector in zip(states, feature, strict=True):
                expected = state[0].mean(axis=0) if settings.pooling == "mean" else state[0, 0]
                assert np.ptp(vector) > 0
                np.testing.assert_allclose(vector, expected, rtol=1e-12, atol=1e-13)  # another order of sums


class TestHead:
    @given(
        seed=st.integers(0, 999),
        texts=st.integers(1, 5),
        layers=st.sampled_from(["last", "mix"]),
        problem=st.sampled_from(PROBLEMS),
    )
    def test_gradients(self, seed, texts, layers, problem):
        rng = np.random.default_rng(seed)
        config = encoder().config
        head = random_head(rng, config, layers)
        features = rng.normal(size=(texts, 3 if layers == "mix" else 1, 6))
        labels = rng.normal(size=(texts, 3))
        if problem == "single_label_classification":
            labels = rng.integers(0, 3, texts)
        elif problem == "multi_label_classification":
            labels = (labels > 0).astype(float)
        loss, grads = head_loss_and_grads(head, features, labels, problem)
        assert np.isfinite(loss) and loss > 0
        assert list(grads) == list(head)
        step = 1e-30
        for name, value in head.items():
            expected = np.empty_like(value)
            for index in np.ndindex(value.shape):
                moved = value.astype(complex)
                moved[index] += 1j * step
                moved_loss, _ = head_loss_and_grads(head | {name: moved}, features, labels, problem)
                expected[index] = moved_loss.imag / step
            norm = max(np.linalg.norm(one) for one in grads.values())
            assert np.abs(grads[name] - expected).max() <= COMPLEX_STEP * norm, name

    def test_scores_of_a_mix(self):
        rng = np.random.default_rng(0)
        head = random_head(rng, encoder().config, "mix")
        features = rng.normal(size=(4, 3, 6))
        shares = np.exp(head["mix.weight"]) / np.exp(head["mix.weight"]).sum()
        mixed = head["mix.gamma"] * sum(share * features[:, layer] for layer, share in enumerate(shares))
        expected = mixed @ head["classifier.weight"].T + head["classifier.bias"]
        np.testing.assert_allclose(head_forward(head, features)[0], expected, rtol=1e-13)

    def test_only_the_classifiers_weight_decays(self):
        names = head_shapes(encoder().config, "mix")
        assert [name for name in names if decays_in_head(name, np.zeros(1))] == ["classifier.weight"]


def separable(layers="last", seed=0):
    """Features of three classes that a line between each two tells apart, and their labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, 60)
    features = rng.normal(size=(60, 3 if layers == "mix" else 1, 6))
    features[np.arange(60), -1, labels] += 4
    return features, labels


def trained(classifier, features, labels, epochs=30, seed=0, **options):
    optimizer = AdamW(classifier.head, decays=decays_in_head)
    return list(
        train_head(
            classifier,
            features,
            labels,
            optimizer,
            lambda step: 0.03,
            epochs=epochs,
            batch_size=16,
            seed=seed,
            **options,
        )
    )


class TestTraining:
    @pytest.mark.parametrize("settings", SETTINGS[::2])
    def test_learns(self, settings):
        classifier = FrozenClassifier(encoder(problem_type=PROBLEMS[0]), settings)
        features, labels = separable(settings.layers)
        losses = trained(classifier, features, labels)
        assert losses[0] > 2 * losses[-1]
        assert (classifier.logits(features).argmax(axis=1) == labels).mean() > 0.95
        if settings.layers == "mix":
            shares = classifier.head["mix.weight"]
            assert shares.argmax() == 2  # the layer that has the classes

    def test_features_are_standardized(self):
        """What is learned does not depend on the features' units, and a constant one is no trouble."""
        features, labels = separable()
        features[:, :, 5] = 7
        scores = []
        for unit, zero in ((1, 0), (1e3, -5)):
            classifier = FrozenClassifier(encoder(), FrozenSettings())
            trained(classifier, unit * features + zero, labels, epochs=3)
            scores.append(classifier.logits(unit * features + zero))
        assert np.abs(scores[0]).max() > 0.5
        np.testing.assert_allclose(scores[1], scores[0], rtol=1e-9, atol=1e-9)

    def test_the_encoder_stays_as_it_is(self):
        bert = encoder()
        before = {name: value.copy() for name, value in bert.params.items()}
        classifier = FrozenClassifier(bert, FrozenSettings("mix"))
        trained(classifier, *separable("mix"), epochs=2)
        for name, value in before.items():
            np.testing.assert_array_equal(bert.params[name], value)

    def test_is_deterministic_in_the_seed(self):
        heads = []
        for seed in (0, 0, 1):
            classifier = FrozenClassifier(encoder(), FrozenSettings("mix"))
            trained(classifier, *separable("mix"), epochs=3, seed=seed)
            heads.append(np.concatenate([value.ravel() for value in classifier.head.values()]))
        assert np.all(heads[0] == heads[1])
        assert not np.all(heads[0] == heads[2])

    def test_losses_are_means_over_texts(self):
        features, labels = separable()
        classifier = FrozenClassifier(encoder(), FrozenSettings())
        optimizer = AdamW(classifier.head, weight_decay=0.0)
        (loss,) = train_head(
            classifier, features, labels, optimizer, lambda step: 0.0, epochs=1, batch_size=7
        )
        assert loss == pytest.approx(np.log(3))  # that of equal probabilities

    def test_gradients_are_clipped(self):
        features, labels = separable()
        moved = []
        for norm in (None, 1e-3):
            classifier = FrozenClassifier(encoder(), FrozenSettings())
            from npbert.training.optimizers import SGD

            optimizer = SGD(classifier.head, momentum=0.0, weight_decay=0.0)
            list(
                train_head(
                    classifier,
                    features,
                    labels,
                    optimizer,
                    lambda step: 1.0,
                    epochs=1,
                    batch_size=60,
                    max_grad_norm=norm,
                )
            )
            moved.append(np.sqrt(sum((value**2).sum() for value in classifier.head.values())))
        assert moved[0] > 0.1
        assert moved[1] == pytest.approx(1e-3, rel=1e-2)


class TestFiles:
    @pytest.mark.parametrize("settings", SETTINGS)
    def test_round_trip(self, settings, tmp_path):
        classifier = FrozenClassifier(encoder(id2label={0: "x", 1: "y", 2: "z"}), settings)
        trained(classifier, *separable(settings.layers), epochs=2)
        assert not is_frozen(tmp_path)
        classifier.save(tmp_path, {"more.txt": "more"})
        assert is_frozen(tmp_path)
        assert (tmp_path / "more.txt").read_text() == "more"
        again = load_frozen(tmp_path)
        assert again.settings == settings
        assert again.encoder.config.label_names == ("x", "y", "z")
        examples = random_examples(5)
        for one, other in zip(again.predict(examples), classifier.predict(examples), strict=True):
            np.testing.assert_allclose(one["logits"], other["logits"], rtol=1e-4, atol=1e-5)  # float32
        assert npbert.load(tmp_path).task == "encoder"

    @pytest.mark.parametrize(
        ("name", "change", "message"),
        [
            (SETTINGS_NAME, lambda path: path.write_text('{"layers": "first"}'), "layers is 'first'"),
            (SETTINGS_NAME, lambda path: path.write_text('{"depth": 3}'), "depth"),
            (SETTINGS_NAME, lambda path: path.write_text('{"layers": "mix"}'), "mix.weight is missing"),
            (SETTINGS_NAME, lambda path: path.write_text("{"), "not valid JSON"),
            (WEIGHTS_NAME, lambda path: path.write_bytes(path.read_bytes()[:-4]), "not a whole safetensors"),
        ],
    )
    def test_damaged(self, name, change, message, tmp_path):
        FrozenClassifier(encoder(), FrozenSettings()).save(tmp_path)
        change(tmp_path / name)
        with pytest.raises(ValueError, match=message) as error:
            load_frozen(tmp_path)
        assert name in str(error.value)

    def test_missing_weights(self, tmp_path):
        FrozenClassifier(encoder(), FrozenSettings()).save(tmp_path)
        (tmp_path / WEIGHTS_NAME).unlink()
        with pytest.raises(FileNotFoundError, match=WEIGHTS_NAME):
            load_frozen(tmp_path)

    def test_head_of_another_encoder(self, tmp_path):
        FrozenClassifier(encoder(), FrozenSettings()).save(tmp_path)
        config = json.loads((tmp_path / "config.json").read_text())
        config["id2label"] = {"0": "x", "1": "y"}
        config["label2id"] = {"x": 0, "y": 1}
        Path(tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(
            ValueError, match=r"classifier\.weight has the shape \(3, 6\); it must be \(2, 6\)"
        ):
            load_frozen(tmp_path)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"classifier.bias": np.array([1, np.nan, 2])}, r"classifier\.bias is not finite"),
            ({"mix.weight": np.zeros(3)}, r"mix\.weight is no parameter"),
        ],
    )
    def test_bad_heads(self, change, message):
        bert = encoder()
        head = random_head(np.random.default_rng(0), bert.config, "last") | change
        with pytest.raises(ValueError, match=message):
            FrozenClassifier(bert, FrozenSettings(), head)


@pytest.mark.parametrize(("name", "value"), [("layers", "all"), ("pooling", "max")])
def test_bad_settings(name, value):
    with pytest.raises(ValueError, match=f"{name} is '{value}'; it must be one of"):
        FrozenSettings(**{name: value})


def test_the_encoder_must_be_one():
    config = tiny_config()
    params = random_params(np.random.default_rng(0), config, "masked_lm")
    with pytest.raises(ValueError, match="'masked_lm'; it must be 'encoder'"):
        FrozenClassifier(Bert(config, params, TOKENIZER, "masked_lm"), FrozenSettings())
