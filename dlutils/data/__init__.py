"""What is fitted: data sets with a known density, the collections, a user's column, units."""

from dlutils.data.datasets import DISTRIBUTIONS, Dataset, load_dataset, make_dataset, waiting_times
from dlutils.data.units import Units

__all__ = ["DISTRIBUTIONS", "Dataset", "Units", "load_dataset", "make_dataset", "waiting_times"]
