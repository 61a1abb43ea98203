"""The HTML page: what is in it, that nothing gets out of it, and that it stays small."""

import dataclasses
import math
import re

import numpy as np
import pytest

from npbert.gradcheck import check
from npbert.gradcheck.html import page
from npbert.gradcheck.html.heat_map import grid_of, heat_map, level, worst_of_each_cell
from npbert.gradcheck.report import Entries, TensorResult
from tests.gradcheck.pages import HOSTILE, Reader, failed, hostile, inconclusive, passed


@pytest.fixture(scope="module")
def reports():
    return [("good", passed()), ("bad", failed()), ("undecided", inconclusive())]


@pytest.fixture(scope="module")
def read(reports):
    return Reader(page(reports, title="Three checks"))


def test_every_tag_is_closed_and_there_is_one_section_a_check(read):
    checks = read.all("details", class_="check")
    assert [found["id"] for found in checks] == ["check-0", "check-1", "check-2"]
    assert ["open" in found for found in checks] == [False, True, True]  # what passed is folded
    assert len(read.all("h1")) == 1
    assert read.all("html", lang="en") and read.all("meta", charset="utf-8") and read.all("title")


def test_links_lead_somewhere(read):
    targets = [link["href"] for link in read.all("a")]
    assert targets == ["#check-1", "#check-2", "#check-0", "#check-1", "#check-2"]


def test_ids_are_unique(read):
    ids = [attributes["id"] for _, attributes in read.elements if "id" in attributes]
    assert len(ids) == len(set(ids)) > 3


def test_it_says_what_is_wrong(reports, read):
    text = read.text()
    row = next(row for row in reports[1][1].tensors if row.name == "weight")
    assert "2 of 3 checks not proven" in text
    assert "[3, 2]" in text
    for value in (row.gradient, row.reference):
        assert f"{value:.9g}" in text
    assert f"{row.uncertainty:.0e}" in text
    assert "3% of 35 entries" in text
    assert "proves nothing" in text  # the note of what is undecided
    assert reports[1][1].reproduce in text
    assert "adjoint identity" in text


def test_all_is_well():
    text = Reader(page([passed()])).text()
    assert "Proven" in text and "not proven" not in text
    assert "All 2 checks proven" in Reader(page([passed(), passed()])).text()


def test_of_one_report():
    report = failed()
    assert report.to_html() == page([report])


def test_it_says_what_the_mistake_looks_like():
    report = failed()
    assert report.diagnosis
    text = Reader(page([report])).text()
    assert text.count(report.diagnosis) == 2  # at the top, and beside the tensor


@pytest.mark.parametrize("mode", ["jacobian", "directional"])
def test_the_other_modes(mode):
    report = failed(mode=mode)
    read = Reader(page([report]))
    assert len(read.all("svg")) == (3 if mode == "jacobian" else 0)
    assert ("of output [" if mode == "jacobian" else "random directions") in read.text()


def test_nothing_was_checked():
    assert "Nothing was checked" in Reader(page([])).text()


def test_a_check_that_never_got_to_an_oracle():
    def raises(x):
        raise RuntimeError("no <such> thing")

    text = Reader(page([check(raises, raises, (np.ones(2),))])).text()
    assert "raises raised RuntimeError: no <such> thing" in text


def test_tables_have_headings_and_maps_have_names(read):
    headings = read.all("th")
    assert headings and all(heading["scope"] in ("col", "row") for heading in headings)
    maps = read.all("svg", class_="map")
    assert len(maps) == 5
    assert all(found["role"] == "img" and found["aria-label"].startswith("Heat map") for found in maps)
    assert any("weight, shape (7, 5): largest" in found["aria-label"] for found in maps)


def test_it_loads_nothing(reports):
    text = page([*reports, ("hostile", hostile())])
    assert not re.search(r"https?://|@import|url\(|<link|<iframe|<base|import\(|fetch\(|XMLHttp", text)
    read = Reader(text)
    assert not read.all("img") and not read.all("link")
    assert not any("src" in attributes for _, attributes in read.elements)
    policy = next(found["content"] for found in read.all("meta") if "http-equiv" in found)
    assert policy.startswith("default-src 'none';")


def test_hostile_names_stay_text():
    report = dataclasses.replace(hostile(), subject=HOSTILE, reproduce=HOSTILE)
    text = page([(HOSTILE, report)], title=HOSTILE)
    read = Reader(text)
    assert len(read.all("script")) == 1
    assert not any(name.startswith("on") for _, attributes in read.elements for name in attributes)
    assert read.text().count("onerror") > 5
    assert all(HOSTILE in found["aria-label"] for found in read.all("svg")[:2])


def test_a_name_that_is_not_unicode_can_be_written():
    page([("half a pair: \ud800", passed())]).encode("utf-8")


def test_the_same_reports_give_the_same_page(reports):
    assert page(reports) == page(reports)


def test_size():
    shape, compared = (200, 300), 5000
    rng = np.random.default_rng(0)
    flat = np.sort(rng.choice(60_000, compared, replace=False))
    values = rng.standard_normal(compared)
    entries = Entries(flat, values * 1.01, values, np.abs(values), np.ones(compared, dtype=bool))
    row = TensorResult("weight", shape, "float64", "failed", compared=compared, size=60_000, entries=entries)
    text = page([dataclasses.replace(failed(), tensors=(row,))])
    assert len(text) < 500_000
    read = Reader(text)
    cells = read.all("svg")[0]["data-cells"].split(";")
    assert 2500 < len(cells) <= 64 * 96
    assert (
        f"a sample: {compared} of 60000 entries compared; a cell is the worst of 4 × 4 entries" in read.text()
    )


def test_blocks_show_their_worst_entry():
    shape = (100, 7)
    error = np.full(700, 1e-16)
    error[[3, 23 * 7 + 1, 24 * 7 + 1]] = 0.5, 0.25, np.nan
    entries = Entries(np.arange(700), np.ones(700), np.ones(700), error, error > 1e-11)
    grid = grid_of(shape, 50, 7)
    assert (grid.rows, grid.columns, grid.block_height, grid.block_width) == (50, 7, 2, 1)
    worst = worst_of_each_cell(grid, entries)
    assert worst.size == 350
    assert {3, 23 * 7 + 1, 24 * 7 + 1} <= set(worst.tolist())
    assert sorted(grid.cells(worst)) == list(range(350))


@pytest.mark.parametrize("shape", [(), (1,), (5,), (500,), (3, 5), (400, 3), (3, 400), (2, 3, 4, 5)])
def test_grids_hold_every_entry(shape):
    grid = grid_of(shape, 20, 30)
    cells = grid.cells(np.arange(math.prod(shape)))
    assert grid.rows <= 20 and grid.columns <= 30
    assert sorted(set(cells.tolist())) == list(range(grid.rows * grid.columns))


def test_levels():
    assert [level(error, 1e-7) for error in (0.0, 1e-20, 9e-8, 1e-7, 2e-7, 1e-4, 10.0, 1e9)] == [
        "b0",
        "b1",
        "b5",
        "b5",
        "a1",
        "a2",
        "a4",
        "a6",
    ]
    assert level(math.inf, 1e-7) == level(math.nan, 1e-7) == "nf"


def test_a_scalar_and_an_empty_tensor():
    report = check(
        lambda x, none: (x**3, x),
        lambda dy, x: (3 * x**2 * dy, np.zeros((0, 3))),
        (np.array(2.0), np.ones((0, 3))),
    )
    scalar, empty = report.tensors
    assert heat_map(scalar, report.rtol, 4, 4).count("<path") >= 1
    assert heat_map(empty, report.rtol, 4, 4) == ""
    Reader(page([report]))


def test_a_report_without_entries_has_no_pictures(reports):
    report = reports[1][1]
    bare = tuple(dataclasses.replace(row, entries=None) for row in report.tensors)
    read = Reader(page([dataclasses.replace(report, tensors=bare)]))
    assert not read.all("svg") and "[3, 2]" in read.text()
