"""An irregular histogram: few bins where the density is constant, cuts where it jumps."""

import numpy as np
import pytest
import torch
from scipy.special import gammaln

from dlutils.data.datasets import make_dataset
from dlutils.estimators.histogram import PRIOR, irregular_histogram


def test_one_bin_for_the_uniform_and_cuts_where_there_are_jumps():
    y = make_dataset("uniform", 1000, 2, 2, seed=4).train
    found = irregular_histogram(y)
    assert len(found.density) == 1
    assert found.edges == pytest.approx([-1, 1], abs=0.02)
    steps = torch.cat([y / 2 - 0.5, y[:200] + 1])  # 5/6 below zero, 1/6 between zero and two
    found = irregular_histogram(steps)
    assert found.edges == pytest.approx([-1, 0, 2], abs=0.05)
    assert found.density == pytest.approx([5 / 6, 1 / 12], rel=0.05)
    assert found.density @ np.diff(found.edges) == pytest.approx(1)
    log_q = found(torch.tensor([-2.0, -0.5, 1.0, 3.0]))
    assert log_q.exp().tolist() == pytest.approx([0, *found.density, 0])


def test_its_evidence_is_that_of_dirichlet_and_no_partition_nearby_has_more():
    y = make_dataset("laplace", 60, 2, 2, seed=0).train
    found = irregular_histogram(y)
    length, k = np.ptp(found.edges), len(found.density)

    def evidence(edges):
        number, width = np.histogram(y, edges)[0], np.diff(edges) / length
        a = PRIOR * width
        value = (gammaln(a + number) - gammaln(a) - number * np.log(width)).sum()
        value += gammaln(PRIOR) - gammaln(PRIOR + 60) - 60 * np.log(length)
        return value - (gammaln(60) - gammaln(k) - gammaln(60 - k + 1))  # of 59 places k - 1

    assert evidence(found.edges) == pytest.approx(found.evidence)
    points = np.sort(y)
    middles = (points[1:] + points[:-1]) / 2
    for j in range(1, k):
        for place in middles:
            edges = found.edges.copy()
            edges[j] = place
            if (np.diff(edges) > 0).all():
                assert evidence(edges) <= found.evidence + 1e-9


def test_weights_are_numbers_of_points():
    y = make_dataset("uniform", 200, 2, 2, seed=1).train
    counts = 1 + 3 * (y > 0).long()
    found = irregular_histogram(y, weights=counts)
    assert found.counts.sum() == counts.sum()
    assert np.abs(found.edges).min() < 0.05, "a cut at zero"
