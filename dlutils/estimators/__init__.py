"""What one would try first on a sample, and what a sample is seen in; held-out comparison."""

from dlutils.estimators.held_out import rivals, table
from dlutils.estimators.smoothing import smoothed_sample
from dlutils.estimators.view import caution, farthest, seen_in, units_of

__all__ = ["caution", "farthest", "rivals", "seen_in", "smoothed_sample", "table", "units_of"]
