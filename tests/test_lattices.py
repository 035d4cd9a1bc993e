"""Even points in a cube, and noise from another density."""

import numpy as np
import pytest
import torch
from scipy import stats

from dlutils.diffusion.lattices import even_lattice, importance_noise


def test_a_lattice_is_more_even_than_chance_and_moves_with_its_shift():
    points, again = (even_lattice(512, torch.Generator().manual_seed(k)).T for k in (0, 1))
    assert points.shape == (512, 3)
    random = np.random.default_rng(0).random((512, 3))
    assert stats.qmc.discrepancy(points.numpy()) < 0.2 * stats.qmc.discrepancy(random)
    shift = (again - points) % 1
    assert (shift - shift[0]).abs().max() < 1e-9, "the same lattice, elsewhere"
    with pytest.raises(ValueError, match="n must be an integer of at least 1, not 0"):
        even_lattice(0)


def test_a_single_point_is_uniform():
    random = torch.Generator().manual_seed(0)
    points = torch.stack([even_lattice(7, random)[:, 3] for _ in range(2000)])
    for axis in range(3):
        assert stats.kstest(points[:, axis].numpy(), "uniform").pvalue > 1e-6


def test_importance_noise_inverts_its_cdf():
    w = torch.linspace(0.001, 0.999, 99)
    eps = importance_noise(w).numpy()
    cdf = stats.norm.cdf(eps) - eps * stats.norm.pdf(eps) / 2
    np.testing.assert_allclose(cdf, w.numpy(), atol=1e-6)
    assert np.abs(stats.norm.cdf(eps) - w.numpy()).max() > 0.05, "and that of no other"
