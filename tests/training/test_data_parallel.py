"""Sums over ranks, and training on several: bit by bit what one process does. Here the ranks are threads."""

import sys
import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npbert.cli.parallel import use_device
from npbert.errors import BackendError
from npbert.training import data_parallel
from npbert.training.communicator import check_agreement
from npbert.training.data_parallel import PIECE, MPICommunicator, connect, workers_of
from npbert.training.failures import TrainingError
from npbert.training.launcher import Launch
from npbert.training.metrics import read_metrics
from tests.cuda import fake_cupy
from tests.training.small import small_bert, small_data, small_run, write_corpus
from tests.training.thread_ranks import on_ranks

SHAPES = [(), (0,), (1,), (7,), (3, 5), (2, 3, 4), (40,)]


def random_grads(seed, rank, dtype, shapes):
    """Numbers of very different sizes: added up in another order, they give another sum."""
    rng = np.random.default_rng([seed, rank])
    grads = {}
    for number, shape in enumerate(shapes):
        values = np.asarray(rng.normal(size=shape) * 10.0 ** rng.integers(-6, 6, size=shape), dtype)
        grads[f"p{number}"] = values
    return grads


def one_after_the_other(all_grads):
    """What a single process makes of the same gradients."""
    first, *others = [{name: grad.copy() for name, grad in grads.items()} for grads in all_grads]
    for grads in others:
        for name in first:
            first[name] = first[name] + grads[name]
    return first


def assert_same_bits(first, second):
    assert list(first) == list(second)
    for name, value in first.items():
        assert value.dtype == second[name].dtype and value.shape == second[name].shape, name
        assert value.tobytes() == second[name].tobytes(), name


# --- sums ----------------------------------------------------------------------------------------------


@given(
    size=st.integers(1, 5),
    piece=st.sampled_from([1, 2, 3, 7, 16, 1000]),
    dtype=st.sampled_from([np.float32, np.float64]),
    shapes=st.lists(st.sampled_from(SHAPES), max_size=6),
    seed=st.integers(0, 1000),
)
def test_gradients_are_summed_in_the_order_of_the_ranks(size, piece, dtype, shapes, seed):
    grads = [random_grads(seed, rank, dtype, shapes) for rank in range(size)]
    expected = one_after_the_other(grads)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data_parallel, "PIECE", piece)
        sums = on_ranks(size, lambda world: MPICommunicator(world).sum_gradients(grads[world.rank]))
    for some in sums:
        assert_same_bits(some, expected)


def test_gradients_of_several_dtypes():
    grads = [
        random_grads(3, rank, np.float32, [(5,)]) | {"wide": random_grads(4, rank, np.float64, [(5,)])["p0"]}
        for rank in range(2)
    ]
    expected = one_after_the_other(grads)
    for sums in on_ranks(2, lambda world: MPICommunicator(world).sum_gradients(grads[world.rank])):
        assert_same_bits(sums, expected)


def test_the_order_matters_to_these_numbers():
    """Or the test above would pass with any order."""
    grads = [random_grads(0, rank, np.float32, [(100,)]) for rank in range(3)]
    forwards, backwards = one_after_the_other(grads), one_after_the_other(grads[::-1])
    assert (forwards["p0"] != backwards["p0"]).sum() > 10


def test_special_numbers_and_negative_zeros_stay(tmp_path):
    rows = np.array([[np.nan, np.inf, -0.0, 1.0], [1.0, -1.0, -0.0, -np.inf]])
    sums = on_ranks(2, lambda world: MPICommunicator(world).sum_gradients({"p": rows[world.rank].copy()}))
    for some in sums:
        np.testing.assert_array_equal(some["p"], [np.nan, np.inf, 0.0, -np.inf])
        assert np.signbit(some["p"][2])


def test_arrays_that_are_not_contiguous():
    grads = [random_grads(1, rank, np.float64, [(6, 5)])["p0"] for rank in range(2)]
    sums = on_ranks(2, lambda world: MPICommunicator(world).sum_gradients({"p": grads[world.rank].T}))
    np.testing.assert_array_equal(sums[0]["p"], (grads[0] + grads[1]).T)
    np.testing.assert_array_equal(sums[1]["p"], (grads[0] + grads[1]).T)


def test_names_may_come_in_any_order():
    def work(world):
        names = ["a", "b"] if world.rank == 0 else ["b", "a"]
        return MPICommunicator(world).sum_gradients({name: np.full(3, float(ord(name))) for name in names})

    for sums in on_ranks(2, work):
        assert sums["a"].tolist() == [2.0 * ord("a")] * 3
        assert sums["b"].tolist() == [2.0 * ord("b")] * 3


def test_memory_is_bounded_and_used_again():
    """Two buffers of a piece, whatever the model: here the gradients are three pieces long."""
    grads = {"large": np.ones(2 * PIECE + 5, np.float32), "small": np.ones(11, np.float32)}

    def work(world):
        ranks = MPICommunicator(world)
        for _ in range(2):
            ranks.sum_gradients({name: grad.copy() for name, grad in grads.items()})
        return world.log

    log = on_ranks(2, work)[0]
    bases = {id(array.base): array.base for _, *arrays in log for array in arrays}
    assert len(log) == 2 * 2 * 3
    assert len(bases) == 2
    assert sum(base.nbytes for base in bases.values()) <= 8.1 * 2**20


def test_numbers_are_summed_in_the_order_of_the_ranks():
    numbers = [[1e16, 0.1], [1.0, 0.2], [-1e16, 0.3]]
    sums = on_ranks(3, lambda world: MPICommunicator(world).sum_numbers(numbers[world.rank]))
    assert sums == [[(1e16 + 1.0) - 1e16, (0.1 + 0.2) + 0.3]] * 3


def test_texts_and_what_is_made_once():
    calls = []

    def work(world):
        ranks = MPICommunicator(world)
        made = ranks.make_once(lambda: calls.append(world.rank) or {"made by": world.rank})
        ranks.wait_for_all()
        return ranks.gather_texts("abc"[world.rank]), made

    assert on_ranks(3, work) == [(["a", "b", "c"], {"made by": 0})] * 3
    assert calls == [0]


# --- arrays of CuPy's: of its stand-in, no device had a part in this -------------------------------------


@pytest.mark.parametrize("takes_device_memory", [True, False])
def test_device_arrays_are_passed_as_they_are_or_through_the_host(monkeypatch, takes_device_memory):
    cupy = fake_cupy.install(monkeypatch)
    waits = []
    stream = types.SimpleNamespace(synchronize=lambda: waits.append("wait"))
    cupy.cuda.get_current_stream = lambda: stream
    host = [random_grads(2, rank, np.float32, [(3, 5), (7,)]) for rank in range(3)]
    expected = one_after_the_other(host)

    def work(world):
        ranks = MPICommunicator(world, takes_device_memory)
        grads = {name: cupy.asarray(value) for name, value in host[world.rank].items()}
        sums = ranks.sum_gradients(grads)
        assert all(isinstance(value, cupy.ndarray) for value in sums.values())
        return {name: cupy.asnumpy(value) for name, value in sums.items()}, world.log

    for sums, log in on_ranks(3, work):
        assert_same_bits(sums, expected)
        assert [name for name, *_ in log] == ["Alltoall", "Allgather"]
        for _, sent, received in log:
            assert isinstance(sent, cupy.ndarray) == isinstance(received, cupy.ndarray) == takes_device_memory
    assert len(waits) == (2 * 3 if takes_device_memory else 0)  # before each call of MPI's


def test_ranks_take_turns_with_the_devices_of_a_machine(monkeypatch):
    cupy = fake_cupy.install(monkeypatch, devices=2)
    used = []
    cupy.cuda.Device = lambda number: types.SimpleNamespace(use=lambda: used.append(number))
    for rank in range(5):
        use_device(rank)
    assert used == [0, 1, 0, 1, 0]


# --- training ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus") / "corpus.txt")


def train_on_ranks(size, directory, corpus, dtype=np.float32, **options):
    def work(world):
        return small_run(
            directory,
            corpus,
            bert=small_bert(dtype=dtype),
            communicator=MPICommunicator(world),
            **options,
        )

    return on_ranks(size, work)


def without_times(directory):
    records = read_metrics(directory / "metrics.jsonl")
    for record in records:
        record.pop("tokens_per_second", None)
    return records


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [2, 3])
def test_ranks_give_the_bits_of_one_process_that_accumulates(tmp_path, corpus, size, dtype):
    alone, _ = small_run(tmp_path / "1", corpus, bert=small_bert(dtype=dtype), accumulate=size)
    assert alone.config.hidden_dropout_prob > 0
    for together, result in train_on_ranks(size, tmp_path / "n", corpus, dtype):
        assert result.finished and result.step == 12
        assert_same_bits(together.params, alone.params)
    assert without_times(tmp_path / "n") == without_times(tmp_path / "1")


def test_ranks_that_accumulate_give_the_large_batch(tmp_path, corpus):
    """Not the same bits: (a + b) + (c + d) is rounded otherwise than ((a + b) + c) + d."""
    alone, _ = small_run(tmp_path / "1", corpus, bert=small_bert(dtype=np.float64), accumulate=4)
    options = {"accumulate": 2, "dtype": np.float64}
    first, second = (bert for bert, _ in train_on_ranks(2, tmp_path / "n", corpus, **options))
    assert_same_bits(first.params, second.params)
    for name, value in alone.params.items():
        # Round-off, carried through 12 steps of an optimiser that divides by the gradients' size.
        np.testing.assert_allclose(first.params[name], value, rtol=0, atol=1e-9, err_msg=name)


def test_held_out_data_of_fewer_batches_than_ranks(tmp_path, corpus):
    few = write_corpus(tmp_path / "few.txt", documents=2)
    held_out = lambda: small_data(few, small_bert(), batch_size=50).one_pass()  # noqa: E731
    assert len(list(held_out())) == 1
    options = {"held_out": held_out, "evaluate_every": 4, "patience": 100}
    small_run(tmp_path / "1", corpus, accumulate=3, **options)
    train_on_ranks(3, tmp_path / "n", corpus, **options)
    assert without_times(tmp_path / "n") == without_times(tmp_path / "1")
    assert sum("held_out_loss" in record for record in without_times(tmp_path / "n")) == 3


def test_another_number_of_ranks_goes_on_with_a_run(tmp_path, corpus):
    """Two batches a step, by two ranks up to step 5, then by one process: no bit is another."""
    expected, _ = small_run(tmp_path / "whole", corpus, accumulate=2)

    class Killed(Exception):
        pass

    def kill_at_6(record):
        if record["step"] == 6:
            raise Killed

    results = train_on_ranks(2, tmp_path / "parts", corpus, report=kill_at_6)
    assert isinstance(results[0], Killed)
    assert (tmp_path / "parts" / "checkpoint-00000005").exists()
    resumed, _ = small_run(tmp_path / "parts", corpus, bert=small_bert(seed=4), accumulate=2, resume=True)
    assert_same_bits(resumed.params, expected.params)


# --- what goes wrong -----------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_is_named_with_its_rank(tmp_path, corpus):
    """Rank 1 alone has a broken parameter from step 3 on; all ranks hear of it, and say the same."""

    class Broken:
        def __init__(self, data, bert):
            self.data, self.bert = data, bert

        def batches(self, position=None):
            for number, taken in enumerate(self.data.batches(position), start=1):
                if number == 5:  # the first of step 3
                    self.bert.params["bert.encoder.layer.1.output.dense.bias"][0] = np.nan
                yield taken

    def work(world):
        bert = small_bert()
        data = small_data(corpus, bert)
        source = Broken(data, bert) if world.rank == 1 else data
        return small_run(tmp_path, corpus, bert=bert, source=source, communicator=MPICommunicator(world))

    errors = on_ranks(2, work)
    assert isinstance(errors[0], TrainingError)
    message = (
        "step 3: the loss is nan, the norm of the gradients nan; the first that is not finite: "
        "the parameter bert.encoder.layer.1.output.dense.bias, on rank 1"
    )
    assert [str(error) for error in errors] == [message, message]


def test_ranks_that_start_apart_are_refused(tmp_path, corpus):
    """As where --out is a folder of each machine's own, and only that of rank 0 has a checkpoint."""
    small_run(tmp_path / "0", corpus, accumulate=2, steps=5)

    def work(world):
        communicator = MPICommunicator(world)
        directory = tmp_path / str(world.rank)
        return small_run(directory, corpus, steps=5, resume=True, communicator=communicator)

    for error in on_ranks(2, work):
        assert isinstance(error, ValueError)
        assert str(error).startswith("step: rank 1 and rank 0 differ; ")


def test_ranks_with_other_parameters_are_refused(tmp_path, corpus):
    def work(world):
        bert = small_bert(seed=world.rank)
        return small_run(tmp_path, corpus, bert=bert, communicator=MPICommunicator(world))

    for error in on_ranks(3, work):
        assert isinstance(error, ValueError)
        assert str(error).startswith("parameters: rank 1 and rank 0 differ; ")


def test_agreement():
    def work(world):
        values = {"first": "same", "second": "other" if world.rank == 2 else "same"}
        check_agreement(MPICommunicator(world), values)

    assert [str(error)[:32] for error in on_ranks(3, work)] == ["second: rank 2 and rank 0 differ"] * 3


@pytest.mark.parametrize(
    ("usable", "workers"),
    [
        ([{0, 1}, {0, 1}], [1, 1]),
        ([{0}, {1}], [1, 1]),
        ([{0, 1, 2, 3}] * 2, [2, 2]),
        ([{0, 1, 2, 3}] * 3, [1, 1, 1]),
        ([{0, 1}] * 4, [1, 1, 1, 1]),  # more ranks than processors
        ([{4, 5, 6}, {7}], [3, 1]),
        ([{0, 1, 2, 3}, {2, 3}], [3, 1]),
    ],
)
def test_ranks_share_the_processors_of_a_machine(usable, workers):
    assert [workers_of(rank, usable) for rank in range(len(usable))] == workers


def fake_mpi4py(monkeypatch, size):
    world = types.SimpleNamespace(Get_size=lambda: size)
    mpi = types.SimpleNamespace(COMM_WORLD=world, Get_library_version=lambda: "Open MPI v5.0.11, package: x")
    monkeypatch.setitem(sys.modules, "mpi4py", types.SimpleNamespace(MPI=mpi))
    return world


def test_connecting(monkeypatch):
    world = fake_mpi4py(monkeypatch, 4)
    assert connect(Launch(1, 4)) is world


def test_another_mpi_library_than_the_launchers(monkeypatch):
    """Each process would train by itself, and all would write to the same directory."""
    fake_mpi4py(monkeypatch, 1)
    with pytest.raises(
        BackendError, match=r"4 processes .* \(Open MPI v5.0.11\) knows of 1: it is not the one"
    ):
        connect(Launch(0, 4))


def test_without_mpi4py(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(BackendError, match=r'2 processes .* needs mpi4py: pip install "npbert\[mpi\]"'):
        connect(Launch(0, 2))
