"""BertClassifier: fine-tuning, as a scikit-learn classifier."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from npbert.bert import DEFAULT_BATCH_TOKENS, Bert
from npbert.checkpoint.source import INSTALLED_MODEL
from npbert.data.labelled import EncodedExample, encode_texts
from npbert.loading import load
from npbert.ops import softmax_forward
from npbert.progress import progress_bar
from npbert.sklearn.labels import classes_and_numbers
from npbert.sklearn.parameters import check_count, check_number
from npbert.sklearn.texts import list_of_texts
from npbert.sklearn.training import Recipe, fine_tune, train_frozen
from npbert.training.frozen import FrozenClassifier, FrozenSettings
from npbert.training.predictions import predict

Array = NDArray[Any]

EPOCHS: Final = 3
LEARNING_RATE: Final = 5e-5
FROZEN_EPOCHS: Final = 30
FROZEN_LEARNING_RATE: Final = 1e-2


class BertClassifier(ClassifierMixin, BaseEstimator):
    """Fine-tune a BERT to tell classes of texts apart, or train a classifier on top of it.

    Fine-tuning: the model gets a new head, a linear layer on its pooler, and all of it is trained, with
    dropout as its configuration has it. Or the encoder stays ``frozen``: it reads each text once, and a
    logistic regression on its vectors is trained, in seconds. Either way by AdamW, on batches that are
    shuffled anew in each epoch, with a learning rate that rises and then falls linearly.

    Parameters
    ----------
    model : str or path
        What to start from: a directory or a name, as for `npbert.load`.
    frozen : bool
        Whether the encoder stays as it is.
    layers : "last" or "mix"
        Where the encoder is frozen: whether a text's vector is from the last layer, or from a learned mix of
        all layers.
    pooling : "mean" or "cls"
        Where the encoder is frozen: whether it is the mean of the tokens' vectors, or the first token's.
    epochs : int or None
        How often each text is seen. None: 3, or 30 where the encoder is frozen.
    batch_size : int
        Texts of one step.
    learning_rate : float or None
        Its peak. None: 5e-5, or 1e-2 where the encoder is frozen.
    warmup : float
        The share of the steps, from 0 to 1, in which the learning rate rises.
    weight_decay : float
        AdamW's, of all parameters but biases and layer norms.
    max_length : int or None
        Texts are cut to this many tokens, at least 3. None: to as many as the model takes.
    early_stopping : bool
        Whether to keep some texts apart, look after each epoch how well the model does on them, stop when it
        gets no better, and keep the model that was best.
    validation_fraction : float
        The share of the texts, between 0 and 1, that ``early_stopping`` keeps apart.
    n_iter_no_change : int
        After so many epochs without a smaller loss on these texts, training stops.
    batch_tokens : int
        The most tokens at once in predictions, padding included: bounds the memory.
    dtype : str
        What is computed in: "float32" or "float64".
    backend : str
        As for `npbert.Bert`.
    random_state : int, RandomState or None
        Of the head's first values, the order of the texts, dropout, and the texts that are kept apart. The
        same int gives the same model, to the last bit. None: another one each time.
    verbose : bool
        Whether to show a progress bar.

    Attributes
    ----------
    classes_ : (C,) array
        The labels, sorted.
    model_ : Bert, or npbert.training.frozen.FrozenClassifier
        What was trained; ``model_.save(path)`` writes it for ``npbert predict``, and for transformers.
    n_iter_ : int
        Epochs that were trained.
    loss_curve_ : list of float
        The mean loss of each epoch.
    validation_loss_curve_ : list of float or None
        The loss on the texts that were kept apart, after each epoch; None without ``early_stopping``.

    Examples
    --------
    .. code-block:: python

        classifier = BertClassifier("all-MiniLM-L6-v2", epochs=3, random_state=0)
        classifier.fit(texts, labels).score(other_texts, other_labels)
        classifier.predict_proba(["A pleasure from start to end."])
    """

    def __init__(
        self,
        model: str | Path = INSTALLED_MODEL,
        *,
        frozen: bool = False,
        layers: str = "last",
        pooling: str = "mean",
        epochs: int | None = None,
        batch_size: int = 32,
        learning_rate: float | None = None,
        warmup: float = 0.1,
        weight_decay: float = 0.01,
        max_length: int | None = None,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 2,
        batch_tokens: int = DEFAULT_BATCH_TOKENS,
        dtype: str = "float32",
        backend: str = "cpu",
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
    ) -> None:
        self.model = model
        self.frozen = frozen
        self.layers = layers
        self.pooling = pooling
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.warmup = warmup
        self.weight_decay = weight_decay
        self.max_length = max_length
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.batch_tokens = batch_tokens
        self.dtype = dtype
        self.backend = backend
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any) -> "BertClassifier":
        """Train on labelled texts, from the checkpoint on.

        Parameters
        ----------
        X : array-like of str, (n,) or (n, 1)
        y : array-like, (n,)
            The class of each text: texts, integers, bools.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If X are not texts, y not as many labels of at least two classes, or a parameter not one of the
            above.
        FileNotFoundError
            If there is no such model.
        npbert.training.failures.TrainingError
            If the loss or a gradient is not finite, say because the learning rate is too high.
        """
        self._check_parameters()
        texts = self._texts(X, reset=True)
        classes, numbers = classes_and_numbers(y, type(self).__name__)
        check_consistent_length(texts, numbers)
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))

        model = self._new_model(classes, seed)
        examples = [
            example._replace(labels={"labels": number})
            for example, number in zip(self._encode(model, texts), numbers, strict=True)
        ]
        held_out = None
        if self.early_stopping:
            share = float(self.validation_fraction)
            examples, held_out = train_test_split(
                examples, test_size=share, random_state=seed, stratify=numbers
            )
        if isinstance(model, FrozenClassifier):
            curves = train_frozen(model, examples, held_out, self._recipe(seed))
        else:
            curves = fine_tune(model, examples, held_out, self._recipe(seed))

        self.classes_ = classes
        self.model_ = model
        self.n_iter_ = len(curves.losses)
        self.loss_curve_ = curves.losses
        self.validation_loss_curve_ = curves.held_out_losses if self.early_stopping else None
        return self

    def decision_function(self, X: Any) -> Array:
        """Return the classes' scores, whose softmax `predict_proba` is.

        Parameters
        ----------
        X : array-like of str, (n,) or (n, 1)

        Returns
        -------
        (n, C) float64, or (n,) for two classes: the second's score less the first's

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        ValueError
            If X are not texts.
        """
        scores = self._scores(X)
        difference: Array = scores[:, 1] - scores[:, 0]
        return difference if len(self.classes_) == 2 else scores

    def predict_proba(self, X: Any) -> Array:
        """Return the probability of each class.

        Parameters
        ----------
        X : array-like of str, (n,) or (n, 1)

        Returns
        -------
        (n, C) float64
            In the order of ``classes_``.

        Raises
        ------
        sklearn.exceptions.NotFittedError, ValueError
            As for `decision_function`.
        """
        probs: Array = softmax_forward(self._scores(X))[0]
        return probs

    def predict(self, X: Any) -> Array:
        """Return the most probable class.

        Parameters
        ----------
        X : array-like of str, (n,) or (n, 1)

        Returns
        -------
        (n,) array, of the type of ``classes_``

        Raises
        ------
        sklearn.exceptions.NotFittedError, ValueError
            As for `decision_function`.
        """
        best = self._scores(X).argmax(axis=1)
        predicted: Array = self.classes_[best]
        return predicted

    def _texts(self, X: Any, reset: bool) -> list[str]:
        """Return X as texts; ``reset`` is scikit-learn's word for a new fit."""
        return list_of_texts(X)

    def _check_parameters(self) -> None:
        for name in ("batch_size", "n_iter_no_change", "batch_tokens"):
            check_count(name, getattr(self, name))
        if self.epochs is not None:
            check_count("epochs", self.epochs)
        if self.max_length is not None:
            check_count("max_length", self.max_length, least=3)  # two special tokens, and some text
        if self.learning_rate is not None:
            check_number("learning_rate", self.learning_rate, least=0)
        check_number("warmup", self.warmup, least=0, most=1)
        check_number("weight_decay", self.weight_decay, least=0)
        check_number("validation_fraction", self.validation_fraction, least=0, most=1, open_ended=True)

    def _new_model(self, classes: Array, seed: int) -> Bert | FrozenClassifier:
        """Return what is to be trained: the checkpoint's model, with a new head for these classes."""
        fields: dict[str, Any] = {
            "id2label": {number: str(name) for number, name in enumerate(classes)},
            "problem_type": "single_label_classification",
        }
        if not self.frozen:
            fields["head_seed"] = seed
        task = "encoder" if self.frozen else "sequence_classification"
        bert = load(self.model, task, self.dtype, self.backend, **fields)
        if bert.tokenizer is None:
            raise ValueError(f"{self.model}: no vocabulary (vocab.txt); without it a model cannot read texts")
        bert.pooling = None  # that of a sentence encoder, which this is no longer
        if self.max_length is not None and self.max_length > bert.max_tokens:
            raise ValueError(f"max_length is {self.max_length}; the model takes {bert.max_tokens} tokens")
        return FrozenClassifier(bert, FrozenSettings(self.layers, self.pooling)) if self.frozen else bert

    def _encode(self, model: Bert | FrozenClassifier, texts: Sequence[str]) -> list[EncodedExample]:
        bert = _bert_of(model)
        assert bert.tokenizer is not None
        limit = bert.max_tokens if self.max_length is None else int(self.max_length)
        return encode_texts(texts, None, bert.tokenizer, limit)

    def _recipe(self, seed: int) -> Recipe:
        epochs, learning_rate = self.epochs, self.learning_rate
        if epochs is None:
            epochs = FROZEN_EPOCHS if self.frozen else EPOCHS
        if learning_rate is None:
            learning_rate = FROZEN_LEARNING_RATE if self.frozen else LEARNING_RATE
        return Recipe(
            epochs=int(epochs),
            batch_size=int(self.batch_size),
            learning_rate=float(learning_rate),
            warmup=float(self.warmup),
            weight_decay=float(self.weight_decay),
            patience=int(self.n_iter_no_change),
            batch_tokens=int(self.batch_tokens),
            seed=seed,
            progress=bool(self.verbose),
        )

    def _scores(self, X: Any) -> Array:
        """Return each text's logits, in float64 so that probabilities add up to 1."""
        check_is_fitted(self)
        model = self.model_
        examples = self._encode(model, self._texts(X, reset=False))
        with progress_bar("predicting", total=len(examples), enabled=bool(self.verbose)) as advance:
            if isinstance(model, FrozenClassifier):
                logits = model.predict(examples, int(self.batch_tokens), advance)
            else:
                logits = predict(model, examples, int(self.batch_tokens), advance)
        return np.stack([one["logits"] for one in logits]).astype(np.float64)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        return tags


def _bert_of(model: Bert | FrozenClassifier) -> Bert:
    return model.encoder if isinstance(model, FrozenClassifier) else model
