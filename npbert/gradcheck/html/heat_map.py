"""Where in a tensor its gradient is wrong: a heat map of the error, as SVG.

Rows of the picture are all axes but the last, columns the last one; a tensor of one axis is a strip. A tensor
of more entries than a picture should have is drawn in blocks, each as bad as its worst entry. The colours are
those of ``page.css``: they say how far an error is from the tolerance, in powers of ten.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from npbert.gradcheck.html.markup import text
from npbert.gradcheck.report import Entries, TensorResult

# Classes of errors, and up to which power of ten of the tolerance each goes. Below the tolerance a class is
# one power of ten, above it two: that an error is too large matters more than by how much.
LEVELS = (
    ("b1", -4.0),
    ("b2", -3.0),
    ("b3", -2.0),
    ("b4", -1.0),
    ("b5", 0.0),
    ("a1", 2.0),
    ("a2", 4.0),
    ("a3", 6.0),
    ("a4", 8.0),
    ("a5", 10.0),
    ("a6", math.inf),
)
NO_ERROR, NOT_FINITE = "b0", "nf"

WIDTH, HEIGHT = 560, 320  # pixels of a picture, at most
LARGEST_CELL = 14  # pixels
GAP_FROM = 6  # pixels of a cell from which on cells have gaps between them


@dataclass(frozen=True)
class Grid:
    """How the entries of a tensor lie in the cells of a picture.

    Attributes
    ----------
    height, width : int
        Entries of the tensor seen as a matrix.
    block_height, block_width : int
        Entries a cell.
    """

    height: int
    width: int
    block_height: int
    block_width: int

    @property
    def rows(self) -> int:
        """Cells from top to bottom."""
        return -(-self.height // self.block_height)

    @property
    def columns(self) -> int:
        """Cells from left to right."""
        return -(-self.width // self.block_width)

    @property
    def is_reduced(self) -> bool:
        """Whether a cell stands for several entries."""
        return self.block_height * self.block_width > 1

    def cells(self, flat: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of the cell, row by row, that each entry lies in."""
        row, column = flat // self.width, flat % self.width
        return row // self.block_height * self.columns + column // self.block_width


def grid_of(shape: tuple[int, ...], most_rows: int, most_columns: int) -> Grid:
    """Return how to draw a tensor of a shape in so many cells at most.

    Examples
    --------
    >>> grid_of((2, 3, 5), 40, 40)
    Grid(height=6, width=5, block_height=1, block_width=1)
    >>> grid_of((3072,), 40, 96).columns
    96
    """
    width = shape[-1] if shape else 1
    height = math.prod(shape[:-1])
    return Grid(height, width, -(-height // most_rows), -(-width // most_columns))


def level(error: float, rtol: float) -> str:
    """Return the class of an error.

    Examples
    --------
    >>> level(0.0, 1e-11), level(1e-11, 1e-11), level(1.1e-11, 1e-11), level(float("nan"), 1e-11)
    ('b0', 'b5', 'a1', 'nf')
    """
    if error == 0:
        return NO_ERROR
    if not math.isfinite(error):
        return NOT_FINITE
    distance = math.log10(error) - math.log10(rtol)
    return next(name for name, most in LEVELS if distance <= most + 1e-9)


def worst_of_each_cell(grid: Grid, entries: Entries) -> NDArray[np.int64]:
    """Return which of the entries are the worst of their cells, from the first cell to the last."""
    cells = grid.cells(entries.flat)
    severity = np.where(np.isfinite(entries.error), entries.error, np.inf)
    order = np.lexsort((severity, cells))
    is_last_of_cell = np.append(np.diff(cells[order]) > 0, True)
    worst: NDArray[np.int64] = order[is_last_of_cell]
    return worst


def heat_map(row: TensorResult, rtol: float, most_rows: int, most_columns: int) -> str:
    """Return the picture of one tensor as SVG; empty where nothing was compared.

    Parameters
    ----------
    row : TensorResult
    rtol : float
        The tolerance.
    most_rows, most_columns : int
        How many cells there may be.
    """
    entries = row.entries
    if entries is None or not entries.flat.size:
        return ""
    grid = grid_of(row.shape, most_rows, most_columns)
    shown = worst_of_each_cell(grid, entries)
    size = max(1.0, min(LARGEST_CELL, WIDTH / grid.columns, HEIGHT / grid.rows))
    margin = 9 / size  # of the marks beside the picture, in cells
    box = [-margin, -margin, grid.columns + margin + 2 / size, grid.rows + margin + 2 / size]
    label = f"Heat map of the relative error of {row.name}, shape {row.shape}"
    if row.worst_index is not None:
        label += f": largest {row.max_error:.1e} at {list(row.worst_index)}"
    parts = [
        f'<svg class="map" role="img" tabindex="0" aria-label="{text(label)}" '
        f'viewBox="{" ".join(f"{number:.4g}" for number in box)}" '
        f'width="{box[2] * size:.0f}" height="{box[3] * size:.0f}" '
        f'data-shape="{",".join(map(str, row.shape))}" '
        f'data-grid="{grid.width},{grid.block_height},{grid.block_width},{grid.columns}" '
        f'data-cells="{_data(entries, shown)}">',
        f'<rect class="no" width="{grid.columns}" height="{grid.rows}"/>',
        *_paths(grid, entries, shown, rtol, side=".9" if size >= GAP_FROM else "1"),
        _separators(row.shape, grid),
        _mark(row, grid, margin),
        "</svg>",
    ]
    return "".join(parts)


def _paths(grid: Grid, entries: Entries, shown: NDArray[np.int64], rtol: float, side: str) -> list[str]:
    """Return the cells, one path for each class of errors that there is; tersely, as they are many."""
    paths: dict[str, list[str]] = {}
    for entry, cell in zip(shown, grid.cells(entries.flat[shown]), strict=True):
        y, x = divmod(int(cell), grid.columns)
        square = f"M{x} {y}h{side}v{side}h-{side}z"
        paths.setdefault(level(float(entries.error[entry]), rtol), []).append(square)
    return [f'<path class="{name}" d="{"".join(squares)}"/>' for name, squares in sorted(paths.items())]


def _separators(shape: tuple[int, ...], grid: Grid) -> str:
    """Return lines between the matrices of which a tensor of three or more axes consists."""
    if len(shape) < 3 or grid.block_height > 1 or shape[-2] == 1:
        return ""
    lines = "".join(f"M0 {y}h{grid.columns}" for y in range(shape[-2], grid.height, shape[-2]))
    return f'<path class="between" d="{lines}"/>' if lines else ""


def _mark(row: TensorResult, grid: Grid, margin: float) -> str:
    """Return a frame around the worst entry and arrows that point at it from the margins."""
    if row.worst_index is None or not row.max_error:
        return ""
    flat = np.array([np.ravel_multi_index(row.worst_index, row.shape) if row.shape else 0])
    y, x = divmod(int(grid.cells(flat)[0]), grid.columns)
    frame = f'x="{x}" y="{y}" width="1" height="1"'
    half = margin * 0.45
    down = f"M{x + 0.5 - half:g} {-margin:g}h{2 * half:g}L{x + 0.5:g} {-margin * 0.2:g}z"
    right = f"M{-margin:g} {y + 0.5 - half:g}v{2 * half:g}L{-margin * 0.2:g} {y + 0.5:g}z"
    return f'<rect class="halo" {frame}/><rect class="worst" {frame}/><path class="at" d="{down}{right}"/>'


def _data(entries: Entries, shown: NDArray[np.int64]) -> str:
    """Return what the page tells about each cell: position, gradient, reference ("" for the same), error."""
    texts = []
    for entry in shown:
        gradient, reference = f"{entries.gradient[entry]:.9g}", f"{entries.reference[entry]:.9g}"
        same = "" if reference == gradient else reference
        texts.append(f"{entries.flat[entry]},{gradient},{same},{entries.error[entry]:.1e}")
    return ";".join(texts)
