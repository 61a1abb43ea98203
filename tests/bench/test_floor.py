"""The floor has the products of the model, no more and no fewer."""

import numpy as np
import pytest

from npbert.bench import floor as floors
from npbert.bench.floor import Floor, Product, chunks_of, decoder_products, forward_products, with_gradients
from npbert.config import BertConfig

CONFIG = BertConfig(
    vocab_size=50, hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20
)


def flops(products) -> int:
    return sum(product.flops for product in products)


def test_forward_products_by_hand():
    tokens, squares = 5 + 3, 25 + 9
    layer = 2 * tokens * (4 * 12 * 12 + 2 * 12 * 20) + 2 * 2 * squares * 12
    assert flops(forward_products(CONFIG, [5, 3])) == 2 * layer
    assert flops(forward_products(CONFIG, [5, 3], pooler=True)) == 2 * layer + 2 * 2 * 12 * 12
    assert flops(decoder_products(CONFIG, 4)) == 2 * 4 * 12 * (12 + 50)


def test_the_last_layer_is_for_what_is_wanted():
    kv, all_tokens, wanted = 5 + 3, 25 + 9, 2 + 1
    layer = 2 * kv * (4 * 12 * 12 + 2 * 12 * 20) + 2 * 2 * all_tokens * 12
    last = 2 * kv * 3 * 12 * 12 + 2 * wanted * (12 * 12 + 2 * 12 * 20) + 2 * 2 * (2 * 5 + 1 * 3) * 12
    assert flops(forward_products(CONFIG, [5, 3], wanted=[2, 1])) == layer + last


def test_gradients_take_twice_as_much():
    products = [*forward_products(CONFIG, [5, 3], pooler=True), *decoder_products(CONFIG, 4)]
    assert flops(with_gradients(products)) == 3 * flops(products)


@pytest.mark.parametrize("form", ["NN", "NT"])
def test_shapes_of_gradients(form):
    forward, dx, dweight = with_gradients([Product(4, 2, 3, form, stack=5)])
    assert (dx.rows, dx.inner, dx.columns) == (4, 3, 2)
    as_stored = (2, 4, 3) if form == "NN" else (3, 4, 2)
    assert (dweight.rows, dweight.inner, dweight.columns) == as_stored
    assert dweight.form == "TN"
    assert forward.stack == dx.stack == dweight.stack == 5


@pytest.mark.parametrize("form", ["NN", "NT", "TN"])
@pytest.mark.parametrize("stack", [1, 3])
def test_every_product_is_computed(form, stack):
    product = Product(4, 6, 5, form, stack)
    floor = Floor([[product]])
    left, right, out = floor._views(product)
    shape = () if stack == 1 else (stack,)
    assert (left.shape, right.shape, out.shape) == ((*shape, 4, 6), (*shape, 6, 5), (*shape, 4, 5))
    assert left.flags.c_contiguous == (form != "TN")
    assert right.flags.c_contiguous == (form != "NT")
    out[...] = 0
    floor.run()
    np.testing.assert_array_equal(out, 6.0)  # of ones


@pytest.mark.parametrize("arrangement", ["_shared_out", "_spread_by_blas", "_on_one_thread"])
def test_arrangements_compute_all_chunks(monkeypatch, arrangement):
    chunks = [with_gradients(forward_products(CONFIG, chunk)) for chunk in ([5], [4, 3], [2])]
    floor = Floor(chunks)
    computed = []
    monkeypatch.setattr(floor, "_run_chunk", computed.append)
    getattr(floor, arrangement)()
    assert sorted(computed) == [0, 1, 2]
    assert floor.flops == sum(map(flops, chunks))


def test_the_faster_arrangement_is_kept(monkeypatch):
    times = {"_shared_out": 2.0, "_spread_by_blas": 1.0, "_on_one_thread": 0.5}
    monkeypatch.setattr(floors, "_least_seconds", lambda run: times[run.__name__])
    chunk = [Product(1, 1, 1)]
    assert Floor([chunk, chunk]).arrangement.__name__ == "_spread_by_blas"
    assert Floor([chunk]).arrangement.__name__ == "_on_one_thread"


def test_weights_have_memory_of_their_own():
    floor = Floor([forward_products(CONFIG, [4]), forward_products(CONFIG, [3])])
    assert len(floor._weights) == 2 * 4
    first, second = (floor._views(floor.chunks[0][index])[1] for index in (0, 3))
    assert not np.shares_memory(first, second)


def test_chunks():
    assert chunks_of([]) == []
    assert chunks_of([1, 2, 3], chunk_tokens=1) == [[3], [2], [1]]
    assert chunks_of([1, 2, 3], chunk_tokens=100) == [[3, 2, 1]]
