import numpy as np

from dlutils.quadrature import gauss_legendre


def test_the_rule_is_exact_below_degree_2n_and_not_at_2n():
    low, high = np.array([-1.0, 0.0, 2.0]), np.array([1.0, 0.5, 5.0])
    nodes, weights = gauss_legendre(3, low, high)
    integral = lambda degree: (high ** (degree + 1) - low ** (degree + 1)) / (degree + 1)
    for degree in range(6):
        np.testing.assert_allclose((weights * nodes**degree).sum(-1), integral(degree), atol=1e-12)
    assert (np.abs((weights * nodes**6).sum(-1) - integral(6)) > 1e-6).all()


def test_numbers_give_one_interval():
    nodes, weights = gauss_legendre(4, 0, 1)
    assert nodes.shape == weights.shape == (4,)
    assert abs(weights.sum() - 1) < 1e-15
