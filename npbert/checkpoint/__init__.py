"""Checkpoints: one file a format, and the writing of files that appear whole or not at all."""

from npbert.checkpoint.files import replacing_files, write_bytes_atomically, write_text_atomically
from npbert.checkpoint.huggingface import (
    Checkpoint,
    read_checkpoint,
    task_from_architectures,
    write_checkpoint,
)
from npbert.checkpoint.installed import find_installed_model
from npbert.checkpoint.sentence_transformers import pooling_files, read_pooling, transformer_directory
from npbert.pooling import PoolingSettings

__all__ = [
    "Checkpoint",
    "PoolingSettings",
    "find_installed_model",
    "pooling_files",
    "read_checkpoint",
    "read_pooling",
    "replacing_files",
    "task_from_architectures",
    "transformer_directory",
    "write_bytes_atomically",
    "write_checkpoint",
    "write_text_atomically",
]
