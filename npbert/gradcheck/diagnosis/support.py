"""Gradients of which only some entries are wrong: where those are says what was forgotten."""

from collections.abc import Iterator

import numpy as np

from npbert.gradcheck.diagnosis.finding import Clue
from npbert.gradcheck.diagnosis.surroundings import IGNORED, Named, Surroundings, alignments
from npbert.gradcheck.diagnosis.wrong import Wrong
from npbert.gradcheck.pair import Array

FEWEST = 5  # entries on either side of a threshold: fewer are there by chance too often
VANISHING = 1e-6  # beside the largest error of a gradient
FILLED = 0.3  # of the entries that a pattern says are wrong, the part that must be


def repeated_ids(wrong: Wrong, around: Surroundings) -> Iterator[Clue]:
    """Only the rows of a table that were read more than once are wrong."""
    rows = _wrong_slices(wrong, 0)
    if wrong.error.ndim != 2 or rows is None:
        return
    for name, ids in around.integers:
        if not ids.size or ids.min() < 0 or ids.max() >= len(rows):
            continue
        counts = np.bincount(ids.ravel(), minlength=len(rows))
        repeated = counts > 1
        if not (_is(rows, repeated) and np.any(counts == 1)):
            # Where every id occurs more than once, what the last occurrence gives decides.
            if not (np.any(rows) and np.all(repeated[rows])):
                continue
            if not any(_last_only(wrong, ids, value) for _, value in around.cotangents):
                continue
        text = f"is wrong only in the rows that occur more than once in {name}"
        if any(_last_only(wrong, ids, value) for _, value in around.cotangents):
            text += ": only the last of the rows with one id counts, where np.add.at would add them all"
        else:
            text += ": their gradients must be added"
        yield Clue("duplicate ids", text, 1.0, {"wrong rows": float(rows.sum())})
        return


def padding_row(wrong: Wrong, around: Surroundings) -> Iterator[Clue]:
    """Only the row of a table is wrong that stands for padding."""
    rows = _wrong_slices(wrong, 0)
    if wrong.error.ndim != 2 or rows is None or rows.sum() != 1 or len(rows) < 3:
        return
    row = int(np.argmax(rows))
    for name, index in around.indices.items():
        if index == row and "pad" in name:
            yield Clue("padding", f"is wrong only in row {row}, which is {name}", 1.0, {"row": float(row)})
            return


def places(wrong: Wrong, around: Surroundings) -> Iterator[Clue]:
    """Only the entries are wrong that a mask, labels or ids point at."""
    if not _is_right_somewhere(wrong):
        return
    share = {"fraction wrong": float(np.mean(wrong.differs))}
    for kind, text, pattern in _places(wrong, around):
        if _is(wrong.differs, pattern & wrong.known) and not np.all(pattern | ~wrong.known):
            yield Clue(kind, text, 1.0, share)
            return


def value_range(wrong: Wrong, around: Surroundings) -> Iterator[Clue]:
    """Only the entries are wrong at which an argument is above, or below, some value."""
    bad, good = wrong.differs, wrong.known & ~wrong.differs
    if min(np.sum(bad), np.sum(good)) < FEWEST:
        return
    sizes = np.abs(wrong.error[bad])
    if sizes.min() < VANISHING * sizes.max():
        return  # the error fades out: that is where it drowns in round-off, not where it ends
    for name, value in around.arguments:
        if value.shape != wrong.error.shape:
            continue
        for label, x in ((name, value), (f"|{name}|", np.abs(value))):
            if x[bad].min() > x[good].max():
                text = f"is wrong only where {label} is {x[bad].min():.4g} or more"
                yield Clue("value range", text, 1.0, {"from": float(x[bad].min())})
                return
            if x[bad].max() < x[good].min():
                text = f"is wrong only where {label} is {x[bad].max():.4g} or less"
                yield Clue("value range", text, 1.0, {"to": float(x[bad].max())})
                return
            inside = (x >= x[bad].min()) & (x <= x[bad].max())
            outside = (x > x[good].max()) | (x < x[good].min())
            if not np.any(inside & good):
                low, high = float(x[bad].min()), float(x[bad].max())
                text = f"is wrong only where {label} is between {low:.4g} and {high:.4g}"
                yield Clue("value range", text, 1.0, {"from": low, "to": high})
                return
            if np.all(outside[bad]):
                low, high = float(x[good].min()), float(x[good].max())
                text = f"is right only where {label} is between {low:.4g} and {high:.4g}"
                yield Clue("value range", text, 1.0, {"from": low, "to": high})
                return


def tiles(wrong: Wrong, around: Surroundings) -> Iterator[Clue]:
    """Only the slices at an end of an axis are wrong, or one slice."""
    if not _is_right_somewhere(wrong):
        return
    if np.sum(wrong.differs) == 1 and wrong.known.sum() > 1:
        at = [int(i) for i in np.argwhere(wrong.differs)[0]]
        yield Clue("one slice", f"is wrong only in the entry {at}")
        return
    for axis in range(wrong.error.ndim):
        bad = _wrong_slices(wrong, axis)
        if bad is None or len(bad) < 3 or bad.all():
            continue
        length, count = len(bad), int(bad.sum())
        what = (
            "entry"
            if wrong.error.ndim == 1
            else ("row", "column")[axis]
            if wrong.error.ndim == 2
            else "slice"
        )
        along = f" along axis {axis}" if what == "slice" else ""
        evidence = {"axis": float(axis), "wrong": float(count), "of": float(length)}
        if count <= length / 2 and bad[-count:].all():
            text = (
                f"is wrong only in the last {count} of {length} {_plural(what)}{along}: the tail is left out"
            )
            yield Clue("last tile", text, 1.0, evidence)
            return
        if count > 1 and bad[:count].all():
            text = f"is wrong only in the first {count} of {length} {_plural(what)}{along}"
            yield Clue("first slices", text, 1.0, evidence)
            return
        if bad[-count:].all():
            text = f"is right only in the first {length - count} of {length} {_plural(what)}{along}"
            yield Clue("first slices", text, 1.0, evidence)
            return
        if count == 1:
            yield Clue("one slice", f"is wrong only in {what} {int(np.argmax(bad))}{along}", 1.0, evidence)
            return


def _places(wrong: Wrong, around: Surroundings) -> Iterator[tuple[str, str, Array]]:
    """Yield places, each with its kind and with the sentence that follows if exactly they are wrong."""
    shape = wrong.error.shape
    for name, ids in around.integers:
        for pattern in _spread(Named(name, ids == IGNORED), shape):
            if pattern.any():
                yield (
                    "ignored labels",
                    f"is wrong only where {name} is {IGNORED}, which does not count",
                    pattern,
                )
        for aligned in alignments(ids.shape, shape[:-1]):
            if shape[-1] < 2 or not ids.size or ids.max() >= shape[-1]:
                continue
            at_label = np.arange(shape[-1]) == ids.reshape(aligned)[..., None]
            pattern = np.broadcast_to(at_label, shape)
            yield "labels", f"is wrong only at the class that {name} names", pattern
            valid = np.broadcast_to((ids != IGNORED).reshape(aligned)[..., None], shape)
            yield "labels", f"is wrong everywhere but at the class that {name} names", valid & ~pattern
            shifted = np.broadcast_to(np.roll(at_label, 1, axis=-1), shape)
            yield (
                "labels",
                f"is wrong at the class that {name} names and at the next: off by one",
                pattern | shifted,
            )
        if shape and ids.size and ids.min() >= 0 and ids.max() < shape[0] and len(shape) == 2:
            occurs = np.zeros(shape[0], dtype=bool)
            occurs[ids.ravel()] = True
            rows = np.broadcast_to(~occurs[:, None], shape)
            yield "absent ids", f"is wrong only in rows that do not occur in {name}", rows
    for mask in around.masks:
        dropout = any(word in mask.name for word in ("keep", "drop"))
        kind = "dropped places" if dropout else "masked places"
        for pattern in _spread(mask, shape):
            yield kind, f"is wrong only where {mask.name} is False", ~pattern
            yield kind, f"is wrong only where {mask.name} is True", pattern
    for name, ids in around.integers:
        for value in (0, 1):
            for pattern in _spread(Named(name, ids == value), shape):
                yield "padding", f"is wrong only where {name} is {value}", pattern


def _spread(mask: Named, shape: tuple[int, ...]) -> Iterator[Array]:
    for aligned in alignments(mask.value.shape, shape):
        yield np.broadcast_to(mask.value.reshape(aligned), shape)


def _is_right_somewhere(wrong: Wrong) -> bool:
    """Tell whether there are right entries, and not only zeros that nothing could get wrong."""
    return bool(np.any(wrong.known & ~wrong.differs & (wrong.reference != 0)))


def _is(bad: Array, pattern: Array) -> bool:
    """Tell whether the wrong entries are those of a pattern, up to some that are right by chance."""
    inside = int(np.sum(bad & pattern))
    return bool(0 < inside == np.sum(bad) and inside >= FILLED * np.sum(pattern) and not np.all(pattern))


def _wrong_slices(wrong: Wrong, axis: int) -> Array | None:
    """Return which slices along an axis are wrong somewhere; None where some of them are not known."""
    if wrong.error.ndim <= axis:
        return None
    others = tuple(other for other in range(wrong.error.ndim) if other != axis)
    if not np.all(wrong.known.any(axis=others)):
        return None
    return np.asarray(wrong.differs.any(axis=others))


def _last_only(wrong: Wrong, ids: Array, cotangent: Array) -> bool:
    """Tell whether each row of a table got the cotangent of the last place only at which it was read."""
    if cotangent.shape != (*ids.shape, wrong.error.shape[-1]):
        return False
    table = np.array(wrong.gradient)
    last = dict(zip(ids.ravel().tolist(), cotangent.reshape(ids.size, -1), strict=True))
    for row, value in last.items():
        if wrong.differs[row].any():
            table[row] = value
    return wrong.fits(table)


def _plural(what: str) -> str:
    return {"entry": "entries"}.get(what, f"{what}s")
