"""BERT's tokenizer: text to token ids, token types and offsets, and back.

    text --normalization--> words --wordpiece--> ids --truncation--> [CLS] ids [SEP]

Each step has the file of its name. `bert_tokenizer.py` puts them together as `WordPieceTokenizer`,
which gives `encoding.py`'s Encoding; `decoding.py` goes back to text, `vocabulary.py` says what a
vocabulary must be, and `files.py` reads and writes the files of a checkpoint.

Ids and offsets are those of the `tokenizers` library for every text. That takes its idea of every
Unicode character, which `unicode_tables.py` holds.
"""

from npbert.tokenizer.bert_tokenizer import WordPieceTokenizer
from npbert.tokenizer.encoding import Encoding

__all__ = ["Encoding", "WordPieceTokenizer"]
