"""npbert for scikit-learn: texts in, vectors or classes out, in a pipeline like any other estimator.

- `SentenceEncoder`, a transformer: a vector of each text, from a model as it is
- `BertClassifier`, a classifier: a model that is fine-tuned on labelled texts, or a classifier on top of one

Needs the extra "sklearn". Nothing else in npbert imports scikit-learn.
"""

try:
    import sklearn  # noqa: F401
except ModuleNotFoundError:
    raise ImportError('npbert.sklearn needs scikit-learn: pip install "npbert[sklearn]"') from None

from npbert.sklearn.bert_classifier import BertClassifier
from npbert.sklearn.sentence_encoder import SentenceEncoder

__all__ = ["BertClassifier", "SentenceEncoder"]
