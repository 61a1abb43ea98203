"""npbert: a BERT you can read, check and embed."""

__version__ = "0.1.0"
