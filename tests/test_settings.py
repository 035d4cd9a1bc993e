"""What a user gives is refused with the value, and with what would be right."""

import numpy as np
import pytest
import torch
from torch.distributions import Normal

from dlutils import diffusion, evaluation, flows
from dlutils.data.datasets import load_dataset, make_dataset
from dlutils.data.samples import load_sample
from dlutils.diffusion.fokker_planck import Evolution
from dlutils.flows import adjoint
from dlutils.seeding import seeded
from dlutils.settings import check_count, check_flag
from dlutils.training import DataSource, fit


@pytest.mark.parametrize("kind", [np.int64, np.uint8])
def test_integers_of_numpy_are_integers(kind):
    check_count("n", kind(3))
    with seeded(kind(1)):
        first = torch.randn(1)
    with seeded(1):
        assert torch.equal(torch.randn(1), first)
    y = make_dataset("gaussian", kind(40), kind(4), kind(4), seed=kind(2)).train
    f = torch.nn.Linear(1, 1)
    drift = lambda x, t: x * 0.1
    assert adjoint.log_likelihood(drift, y, n_steps=kind(3)).isfinite().all()
    draw = DataSource(y, kind(8), batch_size=kind(5), seed=kind(0))
    assert len(draw()[0]) == 5
    objective = lambda: f(torch.ones(1)).sum()
    options = {"n_iterations": kind(2), "validate_every": kind(1), "progress": False}
    assert len(fit(f, objective, lambda: 0.0, **options).train) == 2


@pytest.mark.parametrize("value", [True, np.True_, 2.0, "2", 0])
def test_what_is_no_count_is_refused(value):
    with pytest.raises(ValueError, match="n must be an integer of at least 1, not"):
        check_count("n", value)


@pytest.mark.parametrize("value", ["false", "False", "True", 0, 1, None])
def test_what_is_neither_true_nor_false_is_refused(value):
    data = make_dataset("gaussian", 20, 2, 2)
    for name, ask in (
        ("drop_missing", lambda: load_dataset("gaussian", drop_missing=value)),
        ("drop_missing", lambda: load_sample("my.csv", drop_missing=value)),
        ("standardize", lambda: flows.train(data, n_iterations=1, standardize=value)),
        ("progress", lambda: flows.train(data, n_iterations=1, progress=value)),
        ("smooth", lambda: flows.flow_matching(data, smooth=value)),
        ("smooth", lambda: diffusion.least_squares(data, smooth=value)),
    ):
        with pytest.raises(ValueError, match=f"{name} must be True or False, .*, not {value!r}"):
            ask()
    check_flag("name", np.False_)


@pytest.mark.parametrize(
    "ask",
    [
        lambda n: flows.train(make_dataset("gaussian", 20, 2, 2), batch_size=n),
        lambda n: flows.flow_matching(make_dataset("gaussian", 20, 2, 2), "mlp", batch_size=n),
        lambda n: diffusion.train(make_dataset("gaussian", 20, 2, 2), batch_size=n),
    ],
)
def test_a_batch_that_memory_does_not_hold_is_refused(ask):
    with pytest.raises(ValueError, match=r"batch_size must be at most 1,000,000, .*not 1,000,00"):
        ask(10**9)


NAN = torch.tensor([0.0, 1.0, torch.nan, 2.0, torch.nan])


@pytest.mark.parametrize(
    "ask",
    [
        lambda: adjoint.log_likelihood(lambda x, t: -x, NAN),
        lambda: adjoint.mean_log_likelihood(lambda x, t: -x, NAN),
        lambda: evaluation.through_nodes(Normal(0.0, 1.0, validate_args=False).log_prob, NAN),
        lambda: Evolution(None, None, 6.5, 0.01).log_density(NAN.double().numpy()),
    ],
)
def test_points_that_are_nan_are_named(ask):
    with pytest.raises(ValueError, match="2 of 5 are NaN, the first at index 2"):
        ask()
