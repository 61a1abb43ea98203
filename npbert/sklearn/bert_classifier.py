"""BertClassifier: fine-tuning, as a scikit-learn classifier."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from npbert.bert import DEFAULT_BATCH_TOKENS, Bert
from npbert.checkpoint.source import INSTALLED_MODEL
from npbert.data.labelled import EncodedExample, LabelledData, encode_texts
from npbert.loading import load
from npbert.ops import softmax_forward
from npbert.progress import progress_bar
from npbert.sklearn.epochs import TrainedEpochs, train_epochs
from npbert.sklearn.labels import classes_and_numbers
from npbert.sklearn.parameters import check_count, check_number
from npbert.sklearn.texts import list_of_texts
from npbert.training.loop import TrainingSettings
from npbert.training.optimizers import AdamW
from npbert.training.predictions import predict
from npbert.training.schedules import make_schedule

Array = NDArray[Any]


class BertClassifier(ClassifierMixin, BaseEstimator):
    """Fine-tune a BERT to tell classes of texts apart.

    The model gets a new head, a linear layer on its pooler, and all of it is trained: AdamW on batches that
    are shuffled anew in each epoch, with a learning rate that rises and then falls linearly, and dropout as
    the model's configuration has it.

    Parameters
    ----------
    model : str or path
        What to start from: a directory or a name, as for `npbert.load`.
    epochs : int
        How often each text is seen.
    batch_size : int
        Texts of one step.
    learning_rate : float
        Its peak.
    warmup : float
        The share of the steps, from 0 to 1, in which the learning rate rises.
    weight_decay : float
        Of all parameters but biases and layer norms.
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
    model_ : Bert
        The trained model; ``model_.save(path)`` writes it for ``npbert predict`` and for transformers.
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
        epochs: int = 3,
        batch_size: int = 32,
        learning_rate: float = 5e-5,
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

        bert = self._start_model(classes, seed)
        examples = [
            example._replace(labels={"labels": np.array(number, dtype=np.int64)})
            for example, number in zip(self._encode(bert, texts), numbers, strict=True)
        ]
        trained = self._train(bert, examples, numbers, seed)

        self.classes_ = classes
        self.model_ = bert
        self.n_iter_ = len(trained.losses)
        self.loss_curve_ = trained.losses
        self.validation_loss_curve_ = trained.held_out_losses if self.early_stopping else None
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
        for name in ("epochs", "batch_size", "n_iter_no_change", "batch_tokens"):
            check_count(name, getattr(self, name))
        if self.max_length is not None:
            check_count("max_length", self.max_length, least=3)  # two special tokens, and some text
        check_number("learning_rate", self.learning_rate, least=0)
        check_number("warmup", self.warmup, least=0, most=1)
        check_number("weight_decay", self.weight_decay, least=0)
        check_number("validation_fraction", self.validation_fraction, least=0, most=1, open_ended=True)

    def _start_model(self, classes: Array, seed: int) -> Bert:
        """Return the model of the checkpoint with a new head for these classes."""
        bert = load(
            self.model,
            "sequence_classification",
            self.dtype,
            self.backend,
            head_seed=seed,
            id2label={number: str(name) for number, name in enumerate(classes)},
            problem_type="single_label_classification",
        )
        if bert.tokenizer is None:
            raise ValueError(f"{self.model}: no vocabulary (vocab.txt); without it a model cannot read texts")
        bert.pooling = None  # that of a sentence encoder, which this is no longer
        if self.max_length is not None and self.max_length > bert.max_tokens:
            raise ValueError(f"max_length is {self.max_length}; the model takes {bert.max_tokens} tokens")
        return bert

    def _encode(self, bert: Bert, texts: Sequence[str]) -> list[EncodedExample]:
        assert bert.tokenizer is not None
        limit = bert.max_tokens if self.max_length is None else int(self.max_length)
        return encode_texts(texts, None, bert.tokenizer, limit)

    def _train(
        self, bert: Bert, examples: Sequence[EncodedExample], numbers: Array, seed: int
    ) -> TrainedEpochs:
        held_out = None
        if self.early_stopping:
            examples, kept_apart = train_test_split(
                examples, test_size=float(self.validation_fraction), random_state=seed, stratify=numbers
            )
            held_out = self._batches(bert, kept_apart, seed)
        data = self._batches(bert, examples, seed)
        steps = int(self.epochs) * data.batches_per_epoch
        settings = TrainingSettings(steps, seed=seed, patience=int(self.n_iter_no_change))
        schedule = make_schedule(
            "linear",
            peak=float(self.learning_rate),
            warmup_steps=round(float(self.warmup) * steps),
            total_steps=steps,
        )
        optimizer = AdamW(bert.params, weight_decay=float(self.weight_decay), share_out=bert.share_out)
        with progress_bar("training", total=steps, enabled=bool(self.verbose)) as advance:
            return train_epochs(bert, data, held_out, optimizer, schedule, settings, advance)

    def _batches(self, bert: Bert, examples: Sequence[EncodedExample], seed: int) -> LabelledData:
        assert bert.tokenizer is not None
        return LabelledData(
            examples, pad_id=bert.tokenizer.pad_id, batch_size=int(self.batch_size), seed=seed
        )

    def _scores(self, X: Any) -> Array:
        """Return each text's logits, in float64 so that probabilities add up to 1."""
        check_is_fitted(self)
        examples = self._encode(self.model_, self._texts(X, reset=False))
        with progress_bar("predicting", total=len(examples), enabled=bool(self.verbose)) as advance:
            logits = predict(self.model_, examples, int(self.batch_tokens), advance)
        return np.stack([one["logits"] for one in logits]).astype(np.float64)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        return tags
