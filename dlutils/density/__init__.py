"""From a sample to its density in one line: a choice of models, bands, censored values."""

from dlutils.density.fitting import FittedDensity, fit_density

__all__ = ["FittedDensity", "fit_density"]
