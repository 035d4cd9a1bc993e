"""Pairs of noise and data keep both distributions; sorted ones are those of equal rank."""

import pytest
import torch
from torch import nn
from torch.distributions import Normal

from conftest import fit_steps
from dlutils.data.datasets import make_dataset
from dlutils.flows.matching import (
    COUPLINGS,
    along_quantiles,
    in_steps,
    mean_squares,
    most_likely,
    path_nodes,
    regress,
)


def sample(name="laplace_mixture", n=10_000):
    y = make_dataset(name, n_train=n, n_test=2).train.double()
    return (y - y.mean()) / y.std()


@pytest.mark.parametrize("coupling", COUPLINGS)
@pytest.mark.parametrize("n", [3, 10_000])
def test_both_ends_keep_their_distribution(coupling, n):
    y = sample(n=n)
    x_0, y_0, w = COUPLINGS[coupling](y)
    assert w.sum().item() == pytest.approx(1, abs=1e-12)
    assert (w > 0).all()
    close = 0.003 if n == 10_000 or coupling == "independent" else 0.5
    for k, exact in ((1, 0.0), (2, 1.0)):
        assert (w @ x_0**k).item() == pytest.approx(exact, abs=close)
        assert (w @ y_0**k).item() == pytest.approx((y**k).mean().item(), abs=3e-3)


def test_independent_noise_does_not_know_the_data_and_sorted_noise_has_its_rank():
    y = sample()
    x_0, y_0, w = COUPLINGS["independent"](y)
    assert (w @ (x_0 * y_0)).item() == pytest.approx(0, abs=3e-3)
    assert (w @ (x_0**2 * y_0**2)).item() == pytest.approx(1, abs=1e-2)
    x_0, y_0, w = COUPLINGS["sorted"](y)
    assert (w @ (x_0 * y_0)).item() > 0.9, "the test can fail"
    assert len(w) <= 600
    assert (torch.stack([x_0, y_0]).diff() > 0).all()
    share = (y <= y_0[:, None]).double().mean(1)
    assert (share - Normal(0.0, 1.0).cdf(x_0)).abs().max() < 0.005


@pytest.mark.parametrize(
    "y", [sample("marron_wand_15"), torch.tensor([0.0] * 50 + [1.0] * 50 + [2.0])], ids=["", "ties"]
)
def test_places_increase_on_both_sides(y):
    ends = along_quantiles(y, 64)
    assert ends.shape == (2, 64)
    assert (ends.diff(dim=1) > 0).all()


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_nodes_lie_on_the_straight_paths(coupling):
    y = sample(n=200)
    x_0, x_1, w = COUPLINGS[coupling](y)
    x, t, v, weights = (row.view(5, -1) for row in path_nodes(y, coupling, n_times=5))
    torch.testing.assert_close(x - t * v, x_0.expand(5, -1))
    torch.testing.assert_close(x + (1 - t) * v, x_1.expand(5, -1))
    torch.testing.assert_close(weights.sum(0), w)
    for k in range(10):  # Gauss and Legendre's rule with five nodes is exact up to the ninth power
        assert (weights * t**k).sum().item() == pytest.approx(1 / (k + 1), abs=1e-12)


def test_sorted_pairs_leave_little_to_a_regression_and_independent_ones_much():
    y = sample(n=2000)
    (straight, _), (crossing, whole) = (
        mean_squares(fit_steps(y, coupling), y, coupling) for coupling in ("sorted", "independent")
    )
    assert straight < 1e-3
    assert crossing > 0.5, "the velocity there varies, whatever the drift"
    assert whole == pytest.approx(2, abs=0.01), "of two variances of one"


class Quadratic(nn.Module):
    """A drift that is linear in its weights."""

    def __init__(self, slope=0.0):
        super().__init__()
        self.c = nn.Parameter(torch.tensor([slope, 0, 0, 0], dtype=torch.float64))

    @staticmethod
    def features(x, t):
        return torch.stack([x, x * t, x**2, torch.ones_like(x)], dim=-1)

    def forward(self, x, t):
        return self.features(x, t) @ self.c


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_the_regression_reaches_the_least_squares(coupling):
    y, f = sample("marron_wand_03", n=2000), Quadratic()
    x, t, v, w = path_nodes(y, coupling)
    root, phi = w.sqrt()[:, None], f.features(x, t)
    c = torch.linalg.lstsq(root * phi, root * v[:, None]).solution[:, 0]
    least = (w @ (phi @ c - v).square()).item()
    history = regress(f, y, y, coupling, n_iterations=300, learning_rate=0.05, progress=False)
    before, after = -history.val[0], -history.val[-1]
    assert (after, before) == pytest.approx(mean_squares(f, y, coupling))
    assert least <= after < 1.01 * least
    assert before > 1.2 * least


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size must be an integer of at least 1, not 0"),
        ({"coupling": "magic"}, "unknown coupling 'magic'; choose from independent, sorted"),
    ],
)
def test_a_bad_regression_is_refused(settings, message):
    y = sample(n=50)
    with pytest.raises(ValueError, match=message):
        regress(Quadratic(), y, y, **{"coupling": "sorted"} | settings)


def test_the_most_likely_drift_is_taken_and_folds_are_passed_over():
    def log_likelihood(f):
        assert not torch.is_grad_enabled()
        if f.c[0] > 5:
            raise ValueError("a step folds the line")
        return -((f.c[0] - 2).item() ** 2)

    value, f = most_likely(map(Quadratic, (9, 0, 3, 1.5, 7)), log_likelihood)
    assert (value, f.c[0].item()) == (-0.25, 1.5)
    with pytest.raises(ValueError, match="none of the drifts has a density: a step folds the line"):
        most_likely(map(Quadratic, (6, 7)), log_likelihood)


class Bent:
    """Stands for a drift: its value, and how many steps hold on the data and everywhere."""

    def __init__(self, value, on_data=1, everywhere=1):
        self.value, self.on_data, self.everywhere = value, on_data, everywhere

    @staticmethod
    def holds(n, least):
        if n < least:
            raise ValueError("a step folds the line")

    def of_val(self, n):
        self.holds(n, self.on_data)
        return self.value

    def is_map(self, n):
        self.holds(n, self.everywhere)


@pytest.mark.parametrize(
    ("drifts", "chosen", "n_steps"),
    [
        ([Bent(1.0), Bent(3.0), Bent(2.0)], 1, 10),
        ([Bent(9.0, 200), Bent(1.0), Bent(3.0), Bent(2.0)], 2, 10),  # worse ones lie in between
        ([Bent(3.0, 30, 30), Bent(2.0)], 0, 40),  # may be better, and is
        ([Bent(1.5, 30, 30), Bent(2.0)], 1, 10),  # may be better, and is not
        ([Bent(3.0, 1, 15), Bent(2.0)], 0, 20),  # folds only where no data are
        ([Bent(3.0, 1, 999), Bent(2.0, 1, 15), Bent(1.0)], 1, 20),  # at the limit the best map
    ],
)
def test_a_drift_takes_the_steps_that_it_needs_and_no_more(drifts, chosen, n_steps):
    value, f, n = in_steps(drifts, Bent.of_val, Bent.is_map, 10)
    assert (value, drifts.index(f), n) == (drifts[chosen].value, chosen, n_steps)


def test_drifts_that_fold_the_line_in_any_number_of_steps_are_an_error():
    with pytest.raises(ValueError, match="none of the drifts has a density in up to 80 steps: a"):
        in_steps([Bent(1.0, 1, 90), Bent(2.0, 90)], Bent.of_val, Bent.is_map, 10)
