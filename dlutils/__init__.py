"""What the notebooks share: data with a known density, training, comparison, plots, a loader."""
