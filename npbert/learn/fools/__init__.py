"""Weak checks to be fooled; one file each."""

from typing import Final

from npbert.learn.fooling import Fool
from npbert.learn.fools.all_ones import ALL_ONES
from npbert.learn.fools.distinct_ids import DISTINCT_IDS
from npbert.learn.fools.dropout_off import DROPOUT_OFF
from npbert.learn.fools.loose_tolerance import LOOSE_TOLERANCE
from npbert.learn.fools.no_padding import NO_PADDING
from npbert.learn.fools.norm_only import NORM_ONLY
from npbert.learn.fools.symmetric_weight import SYMMETRIC_WEIGHT
from npbert.learn.fools.unit_weight import UNIT_WEIGHT

FOOLS: Final[tuple[Fool, ...]] = (
    ALL_ONES,
    SYMMETRIC_WEIGHT,
    NORM_ONLY,
    LOOSE_TOLERANCE,
    NO_PADDING,
    DROPOUT_OFF,
    DISTINCT_IDS,
    UNIT_WEIGHT,
)
