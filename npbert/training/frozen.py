"""Feature-based use of a model: the encoder stays as it is, and only a small head on top of it learns.

The encoder reads each text once. What it makes of the text, one vector, or one of each layer, is kept; on
these features a logistic regression is trained (a linear one, where a label is a number), with hand-written
gradients, in seconds.

References
----------
Devlin et al. (2018), BERT, section 5.3; Peters, Ruder and Smith (2019), To Tune or Not to Tune?
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from npbert import ops
from npbert.bert import DEFAULT_BATCH_TOKENS, Bert
from npbert.checkpoint.huggingface import json_text, read_json_object, read_safetensors
from npbert.data.labelled import EncodedExample, epoch_order, pad_batch
from npbert.encoding import batches_by_length
from npbert.loading import load
from npbert.ops.array_module import to_numpy
from npbert.params import Params
from npbert.pooling import POOLING_MODES, PoolingSettings, pool
from npbert.training.clipping import clip_by_global_norm
from npbert.training.frozen_head import (
    CLASSIFIER_WEIGHT,
    FEATURES_MEAN,
    FEATURES_SCALE,
    MIX_GAMMA,
    Standardization,
    check_head,
    feature_layers,
    head_forward,
    head_loss_and_grads,
    head_shapes,
    measure,
    standardize,
)
from npbert.training.optimizers import Optimizer
from npbert.training.tasks.sequence_classification import problem_type_of

Array = NDArray[Any]

SETTINGS_NAME: Final = "frozen_head.json"
WEIGHTS_NAME: Final = "frozen_head.safetensors"

LAYERS: Final = ("last", "mix")
FEATURES: Final = (FEATURES_MEAN, FEATURES_SCALE)


@dataclass(frozen=True)
class FrozenSettings:
    """What of the encoder is a text's feature.

    Parameters
    ----------
    layers : str
        "last": the last layer; "mix": a learned mix of the embeddings and all layers.
    pooling : str
        "mean": the mean of the tokens' vectors; "cls": the first token's.

    Raises
    ------
    ValueError
        For anything else.
    """

    layers: str = "last"
    pooling: str = "mean"

    def __post_init__(self) -> None:
        for name, allowed in (("layers", LAYERS), ("pooling", POOLING_MODES)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(allowed)}")


class FrozenClassifier:
    """An encoder that does not learn, and a head that does.

    Parameters
    ----------
    encoder : Bert
        Of the task "encoder", with a tokenizer; its configuration has the labels, as for
        "sequence_classification".
    settings : FrozenSettings
    head : mapping of str to array, optional
        The head's parameters; see `head_shapes`. None: it has still to learn.
    standardization : Standardization, optional
        Of the features that the head was trained on.

    Attributes
    ----------
    encoder, settings
        As given.
    head : dict of str to array
    standardization : Standardization

    Raises
    ------
    ValueError
        If the head is not one for this encoder.
    """

    def __init__(
        self,
        encoder: Bert,
        settings: FrozenSettings,
        head: Mapping[str, Array] | None = None,
        standardization: Standardization | None = None,
    ) -> None:
        if encoder.task != "encoder":
            raise ValueError(f"the task of the encoder is {encoder.task!r}; it must be 'encoder'")
        self.encoder = encoder
        self.settings = settings
        shapes = head_shapes(encoder.config, settings.layers)
        if head is None:
            # The head of equal probabilities: from there, the loss has no other minimum to end up in.
            head = {name: np.zeros(shape, encoder.dtype) for name, shape in shapes.items()}
            if MIX_GAMMA in head:
                head[MIX_GAMMA][...] = 1
        self.head: Params = {name: value.astype(encoder.dtype) for name, value in head.items()}
        check_head(self.head, shapes)
        if standardization is None:
            shape = (feature_layers(encoder.config, settings.layers), encoder.config.hidden_size)
            standardization = Standardization(np.zeros(shape, encoder.dtype), np.ones(shape, encoder.dtype))
        self.standardization = standardization

    def features(
        self,
        examples: Sequence[EncodedExample],
        batch_tokens: int = DEFAULT_BATCH_TOKENS,
        advance: Callable[[int], None] = lambda done: None,
    ) -> Array:
        """Run the encoder.

        Parameters
        ----------
        examples : sequence of EncodedExample
        batch_tokens : int
            The most tokens at once, padding included; a longer example runs alone.
        advance : callable
            Called with a number of examples when these are done.

        Returns
        -------
        (n, J, D)
            The vectors of J layers; one, where the last is all that is asked for.
        """
        assert self.encoder.tokenizer is not None
        is_mix = self.settings.layers == "mix"
        pooling = PoolingSettings(self.settings.pooling)
        config = self.encoder.config
        layers = feature_layers(config, self.settings.layers)
        found = np.empty((len(examples), layers, config.hidden_size), self.encoder.dtype)
        for numbers in batches_by_length([len(example.input_ids) for example in examples], batch_tokens):
            unlabelled = [examples[number]._replace(labels={}, token_labels=None) for number in numbers]
            inputs: dict[str, Any] = pad_batch(unlabelled, self.encoder.tokenizer.pad_id)
            output = self.encoder.forward(**inputs, output_hidden_states=is_mix)
            states = output.hidden_states if is_mix else (output.last_hidden_state,)
            assert states is not None
            mask = inputs["attention_mask"].astype(bool)
            for layer, state in enumerate(states):
                found[numbers, layer] = pool(to_numpy(state), mask, pooling, ops)
            advance(len(numbers))
        return found

    def logits(self, features: Array) -> Array:
        """Return the head's scores.  (n, J, D) -> (n, C)"""
        scores: Array = head_forward(self.head, standardize(features, self.standardization))[0]
        return scores

    def predict(
        self,
        examples: Sequence[EncodedExample],
        batch_tokens: int = DEFAULT_BATCH_TOKENS,
        advance: Callable[[int], None] = lambda done: None,
    ) -> list[dict[str, Array]]:
        """Return the scores of examples, as `npbert.training.predictions.predict` does."""
        features = self.features(examples, batch_tokens, advance)
        return [{"logits": scores} for scores in self.logits(features)]

    def save(self, path: Path | str, other_files: Mapping[str, bytes | str] | None = None) -> None:
        """Write a directory: the encoder, for `npbert.load` and transformers, and the head beside it.

        Parameters
        ----------
        path : path
            A directory; made if need be. All files appear together, or none.
        other_files : mapping of str to bytes or str, optional
            Contents of more files, by their names.
        """
        from safetensors.numpy import save

        files: dict[str, bytes | str] = {
            SETTINGS_NAME: json_text(asdict(self.settings)),
            WEIGHTS_NAME: save(
                self.head
                | {FEATURES_MEAN: self.standardization.mean, FEATURES_SCALE: self.standardization.scale}
            ),
        }
        self.encoder.save(path, other_files=files | dict(other_files or {}))


def load_frozen(source: Path | str, backend: str = "cpu") -> FrozenClassifier:
    """Read what `FrozenClassifier.save` wrote.

    Parameters
    ----------
    source : path or str
        The directory.
    backend : str
        What the encoder computes with.

    Returns
    -------
    FrozenClassifier

    Raises
    ------
    FileNotFoundError
        If there is no such directory, or a file is missing.
    ValueError
        If a file is damaged, or the head is not one for this encoder. Names the file.
    """
    directory = Path(source)
    values = read_json_object(directory / SETTINGS_NAME)
    encoder = load(directory, task="encoder", backend=backend)
    try:
        settings = FrozenSettings(**values)
        head = read_safetensors(directory / WEIGHTS_NAME)
        shape = (feature_layers(encoder.config, settings.layers), encoder.config.hidden_size)
        check_head(head, head_shapes(encoder.config, settings.layers) | dict.fromkeys(FEATURES, shape))
        standardization = Standardization(*(head.pop(name).astype(encoder.dtype) for name in FEATURES))
        return FrozenClassifier(encoder, settings, head, standardization)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{directory}: {SETTINGS_NAME} or {WEIGHTS_NAME}: {error}") from None


def is_frozen(source: Path | str) -> bool:
    """Return whether a directory has what `FrozenClassifier.save` writes."""
    return (Path(source) / SETTINGS_NAME).exists()


def decays_in_head(name: str, value: Array) -> bool:
    """Return whether weight decay applies to a parameter of the head: to the classifier's weight alone."""
    return name == CLASSIFIER_WEIGHT


def train_head(
    classifier: FrozenClassifier,
    features: Array,
    labels: Array,
    optimizer: Optimizer,
    schedule: Callable[[int], float],
    *,
    epochs: int,
    batch_size: int = 32,
    seed: int = 0,
    max_grad_norm: float | None = 1.0,
) -> Iterator[float]:
    """Train the head on features that have been computed.

    Parameters
    ----------
    classifier : FrozenClassifier
        Its head is changed, and its standardization set.
    features : (n, J, D) floating
        Of `FrozenClassifier.features`.
    labels : (n,) int64 or (n, C) floating
    optimizer : Optimizer
        Of ``classifier.head``.
    schedule : callable
        The learning rate of each step, counted from 0.
    epochs, batch_size, seed
        Texts are shuffled in each epoch, by the seed and the epoch alone.
    max_grad_norm : float or None

    Yields
    ------
    float
        The mean loss of each epoch.
    """
    problem_type = problem_type_of(classifier.encoder.config)
    classifier.standardization = measure(features)
    features = standardize(features, classifier.standardization)
    step = 0
    for epoch in range(epochs):
        order = epoch_order(len(features), seed, epoch)
        total = 0.0
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            loss, grads = head_loss_and_grads(classifier.head, features[rows], labels[rows], problem_type)
            if max_grad_norm is not None:
                clip_by_global_norm(grads, max_grad_norm)
            optimizer.step(grads, schedule(step))
            step += 1
            total += float(loss) * len(rows)
        yield total / len(order)
