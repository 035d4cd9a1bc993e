"""Commands, and what is not needed to compute: runs, pages, sweeps, checks, cost, widgets."""
