"""Where a model is found: directories, models that ship with npbert, names."""

import sys

import numpy as np
import pytest

import npbert
from npbert.checkpoint import shipped
from npbert.checkpoint.half_precision import to_half_precision
from npbert.checkpoint.huggingface import write_checkpoint
from npbert.checkpoint.source import find_directory
from tests.cli.conftest import tiny_bert


@pytest.fixture
def models(tmp_path, monkeypatch):
    """Let npbert ship a model in half precision; return the directory of models."""
    bert = tiny_bert("pretraining")
    halved, _ = to_half_precision(bert.params)
    directory = tmp_path / "models" / "npbert-tiny"
    write_checkpoint(directory, bert.config, halved, bert.task, other_files=bert.tokenizer.files())
    monkeypatch.setattr(shipped, "SHIPPED_DIRECTORY", tmp_path / "models")
    return tmp_path / "models"


def test_a_shipped_model_is_found_by_its_name(models, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # nothing asks a network
    assert find_directory("npbert-tiny") == models / "npbert-tiny"
    bert = npbert.load("npbert-tiny")
    assert bert.task == "pretraining"
    assert bert.tokenizer is not None


def test_half_precision_is_computed_with_in_single(models):
    bert = npbert.load("npbert-tiny")
    exact = tiny_bert("pretraining").params
    for name, value in bert.params.items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, exact[name].astype(np.float16).astype(np.float32))
    assert len(bert.fill_mask("the [MASK] barks .")[0]) == 5


def test_a_directory_of_that_name_comes_first(models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "npbert-tiny").mkdir()
    assert find_directory("npbert-tiny").resolve() == tmp_path / "npbert-tiny"


def test_an_installation_without_the_model_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "SHIPPED_DIRECTORY", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"npbert-tiny: no such directory; this installation"):
        npbert.load("npbert-tiny")


def test_other_names_are_not_shipped():
    with pytest.raises(FileNotFoundError, match="npbert-huge: npbert ships no such model, only npbert-tiny"):
        shipped.find_shipped_model("npbert-huge")
    with pytest.raises(FileNotFoundError):
        find_directory("./npbert-tiny")
