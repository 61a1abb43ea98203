"""npbert for scikit-learn: texts in, vectors or classes out, in a pipeline like any other estimator.

- `SentenceEncoder`, a transformer: a vector of each text, from a model as it is
- `BertClassifier`, a classifier: a model that is fine-tuned on labelled texts, or a classifier on top of one

Needs the extra "sklearn". Nothing else in npbert imports scikit-learn.

Examples
--------
With a model of nine words, which knows nothing yet:

>>> import tempfile
>>> from npbert import Bert, BertConfig, WordPieceTokenizer, init_params
>>> words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dull", "fine", "film"]
>>> config = BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
...                     intermediate_size=16, max_position_embeddings=8)
>>> params = init_params(config, "encoder", seed=0)
>>> model = tempfile.TemporaryDirectory()
>>> Bert(config, params, WordPieceTokenizer(words), "encoder").save(model.name)

>>> texts, labels = ["a fine film", "a dull film", "fine", "dull"] * 4, ["good", "bad"] * 8
>>> SentenceEncoder(model.name).fit_transform(texts).shape
(16, 8)
>>> classifier = BertClassifier(model.name, epochs=20, learning_rate=0.02, random_state=0)
>>> classifier.fit(texts, labels).predict(["fine film", "dull"])
array(['good', 'bad'], dtype='<U4')
>>> model.cleanup()
"""

try:
    import sklearn  # noqa: F401
except ModuleNotFoundError:
    raise ImportError('npbert.sklearn needs scikit-learn: pip install "npbert[sklearn]"') from None

from npbert.sklearn.bert_classifier import BertClassifier
from npbert.sklearn.sentence_encoder import SentenceEncoder

__all__ = ["BertClassifier", "SentenceEncoder"]
