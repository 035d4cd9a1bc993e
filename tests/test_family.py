"""One prediction of y with any noise: the same density, and the factor by which the bound loses."""

import numpy as np
import pytest
import torch

from dlutils.data.datasets import make_dataset
from dlutils.data.units import Units
from dlutils.diffusion.bound import tightness

DELTA = 0.05
EXPECTED_LOSS = 0.5 * np.log1p(DELTA**-2)  # of the exact prediction at r = 1: half of log(1 + SNR)


@pytest.fixture
def exact(sde):
    """Untrained, the preconditioned drift predicts standard normal data as well as can be."""
    model = sde.build_sde("linear", "optimal", "preconditioned", DELTA)
    units = Units(1.0, 0.5)  # of the dataset "gaussian"
    return sde.FittedSDE(model, None, units, 6.5)


@pytest.mark.parametrize("r", [0.25, 4.0])
def test_an_exact_prediction_has_the_same_density_and_the_known_gap_for_every_noise(sde, exact, r):
    end = tightness(make_dataset("gaussian"), sde.with_r(exact, r), 401)
    assert abs(end.kl) < 1e-3
    assert end.exact.mass == pytest.approx(1, abs=1e-4)
    lost = end.gap + EXPECTED_LOSS
    assert lost == pytest.approx((1 + r) ** 2 / (4 * r) * EXPECTED_LOSS, rel=0.02)
    if r > 1:
        assert lost != pytest.approx((1 + r) / 2 * EXPECTED_LOSS, rel=0.2), "of another factor"


def test_r_scales_the_variance_of_the_noise(sde):
    path = sde.LinearPath(DELTA)
    x, t = torch.zeros(5), torch.linspace(0.1, 0.9, 5)
    ratio = sde.OptimalDiffusion(path, 4.0)(x, t) / sde.OptimalDiffusion(path)(x, t)
    torch.testing.assert_close(ratio, torch.full_like(t, 2.0))


def test_a_prediction_is_a_score(exact):
    """Tweedie: (a y_hat - x) / beta^2 is the slope of log p(x, t), here of a normal."""
    model, t, x = exact.model, torch.full((7,), 0.3), torch.linspace(-2, 2, 7)
    a, beta, _, _ = model.path.schedule(t)
    score = (a * model.net(x, t) - x) / beta**2
    torch.testing.assert_close(score, -x / (a**2 + beta**2))
