"""What is computed has the data's type, and torch's default type changes not one digit of it."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from conftest import ode_definitions, sde_definitions
from dlutils.arrays import dtype_of
from dlutils.data.datasets import Dataset, make_dataset
from dlutils.diffusion.importance import log_weights
from dlutils.diffusion.probability_flow import ProbabilityFlow
from dlutils.estimators.held_out import log_likelihood, rivals
from dlutils.evaluation import compare

ODE, SDE = ode_definitions(), sde_definitions()
TYPES = torch.float32, torch.float64
SHORT = {"n_iterations": 3, "progress": False}
QUICK = {"preconditioning": "gaussian", "n_knots": 40, "n_times": 8, "n_bins": 60}


def small(name="laplace_mixture"):
    return make_dataset(name, 200, 50, 40)


def own():
    """A user's own data, bounded, rounded and weighted."""
    y = np.random.default_rng(0).gamma(2.0, 10.0, size=300).round(1) + 0.1
    return Dataset.from_samples(y, support=(0, np.inf), rounding=0.1, weights=1 + y)


def ode(data, **options):
    return ODE.train(data, n_steps=4, **SHORT | options)


def sde(data, path="linear", diffusion="learned_in_t", drift="preconditioned", **options):
    return SDE.train(data, path, diffusion, drift, **{"batch_size": 64} | SHORT | options)


WAYS = {  # every drift net, coupling, path, diffusion and sampler of times
    "ODE, linear": lambda data: ode(data, drift="linear"),
    "ODE, mlp": lambda data: ode(data, optimizer="natural"),
    "ODE, concat_squash": lambda data: ode(data, drift="concat_squash", batch_size=32),
    "ODE, fourier": lambda data: ode(data, drift="fourier", method="rk4", logdet="map"),
    "ODE, sigmoid_basis": lambda data: ode(data, drift="sigmoid_basis"),
    "matching, smooth": lambda data: ODE.flow_matching(data, smooth=True),
    "matching, independent": lambda data: ODE.flow_matching(data, coupling="independent"),
    "matching, mlp": lambda data: ODE.flow_matching(data, "mlp", **SHORT),
    "SDE, free": lambda data: sde(data, "linear", "constant", "free", t_sampler="iid"),
    "SDE, predict_y": lambda data: sde(
        data, "variance_preserving", "root_two_beta", "predict_y", t_sampler="low_discrepancy"
    ),
    "SDE, preconditioned": lambda data: sde(data, "learned", t_sampler="log_snr"),
    "SDE, basis": lambda data: sde(data, "linear", "learned_in_x_and_t", "basis"),
    "SDE, mixture": lambda data: sde(
        data, diffusion="optimal", preconditioning="mixture", t_sampler="frozen"
    ),
}
SOLVED = {"SDE, solved": lambda data: SDE.least_squares(data, n_knots=40, n_times=8, n_bins=60)}


def net_of(fitted):
    return fitted.drift if hasattr(fitted, "drift") else fitted.model


def results(fitted, data, density=False):
    """All that a fitted model gives, by name; of an SDE the density, which is slow, if asked."""
    y, history = data.test[:8], fitted.history
    found = {
        "weights": torch.cat([p.flatten() for p in net_of(fitted).state_dict().values()]),
        "sample": fitted.sample(16),
        "history": torch.tensor(history.train + history.val, dtype=torch.float64),
    }
    if not hasattr(fitted, "elbo"):
        return found | {"log-likelihood": fitted.log_likelihood(y)}
    x, model, random = fitted.standardized(y), fitted.model, torch.Generator().manual_seed(0)
    found["elbo"] = fitted.elbo(y)
    with torch.no_grad():
        found["importance weights"] = log_weights(model, x, 2, 4, random)
    found["paths"] = SDE.simulate(model, 4, 10, random)[1]
    if model.net.predicts_y:
        found["probability flow"] = ProbabilityFlow(model.path, model.net, 10).paths(x)
        if density:
            found["log-likelihood"] = replace(fitted, n_steps=100).log_likelihood(y)
    return found


def judged(data):
    """What `compare`, held-out points and rivals give."""
    model, rivals_of = ode(data, drift="linear"), rivals(Dataset.from_samples(data.train))
    return {
        "points": torch.cat([data.train, data.val, data.test]),
        "compared": torch.from_numpy(compare(data, model.log_likelihood).log_q),
        "held out": log_likelihood(model, data),
        **{name: rival(data.test[:8]) for name, rival in rivals_of.items()},
    }


def densities(data):
    return {"points": torch.cat([data.train, data.val, data.test]), "p": data.log_prob(data.test)}


CASES = {  # what is computed from which data
    f"{way}, {make.__name__}": lambda way=way, make=make: results(
        (WAYS | SOLVED)[way](data := make()), data, way in SOLVED
    )
    for way, make in [(way, small) for way in WAYS | SOLVED]
    + [(way, own) for way in ("ODE, mlp", "matching, smooth", "SDE, basis", "SDE, solved")]
}
CASES |= {f"judged, {make.__name__}": lambda make=make: judged(make()) for make in (small, own)}
CASES |= {
    name: lambda name=name: densities(make_dataset(name, 50, 5, 5))
    for name in ("student_t", "marron_wand_10", "benchden_04", "benchden_22")
}


@pytest.mark.parametrize("compute", CASES.values(), ids=CASES)
def test_the_default_type_changes_nothing_and_all_is_double(compute):
    found = []
    for default in TYPES:
        torch.set_default_dtype(default)
        found.append(compute())
    for name, value in found[0].items():
        assert value.dtype == found[1][name].dtype == torch.float64, name
        assert torch.equal(value, found[1][name]), name
        assert value.isfinite().all(), name


@pytest.mark.parametrize("way", WAYS)
def test_with_single_data_all_is_single(way):
    torch.set_default_dtype(torch.float64)  # what leans on it would be double
    data = small().to(torch.float32)
    fitted = WAYS[way](data)
    assert dtype_of(net_of(fitted)) == torch.float32
    for name, value in net_of(fitted).state_dict().items():
        assert value.dtype == torch.float32 or not value.is_floating_point(), name
    found = results(fitted, data)
    for name in found.keys() & {"sample", "elbo", "importance weights", "paths"}:
        assert found[name].dtype == torch.float32, name
        assert found[name].isfinite().all(), name
    if "log-likelihood" in found:
        assert found["log-likelihood"].isfinite().all()


@pytest.mark.parametrize("drift", ["mlp", "sigmoid_basis"])
def test_single_and_double_data_give_the_same_but_for_rounding(drift):
    """From the same weights, in a short training: in a long one rounding grows."""
    data = small()
    first = ode(data, drift=drift).drift
    fits = [
        ode(data.to(dtype), drift=drift, start=copy.deepcopy(first).to(dtype), n_iterations=10)
        for dtype in TYPES
    ]
    rounded, exact = (fit.log_likelihood(data.test) for fit in fits)
    assert (rounded.dtype, exact.dtype) == TYPES
    assert 0 < (rounded - exact).abs().max() < 1e-4


def test_what_single_precision_cannot_keep_apart_fits_in_double():
    y = np.random.default_rng(0).normal(1e6, 0.01, size=600)
    data = Dataset.from_samples(y)
    with pytest.raises(ValueError, match=r"single precision, .* subtract a constant from them"):
        data.to(torch.float32)
    shifted = Dataset.from_samples(y - 1e6)
    far, near = (ODE.flow_matching(d) for d in (data, shifted))
    difference = far.log_likelihood(data.test) - near.log_likelihood(shifted.test)
    assert difference.abs().max() < 1e-5, "what 1e6 costs in double precision"
    trained = ode(data, drift="mlp", method="rk4", logdet="map", n_iterations=30)
    for flow in (far, trained):
        assert compare(data, flow.log_likelihood).mass == pytest.approx(1, abs=1e-3)
    closed = SDE.least_squares(data, **QUICK)
    assert compare(data, closed.log_likelihood).mass == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("train", [ODE.train, SDE.train], ids=["ODE", "SDE"])
def test_a_device_without_double_precision_is_told_what_to_do(monkeypatch, train):
    def zeros(*size, dtype=None, real=torch.zeros, **options):
        if dtype == torch.float64 and "device" in options:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return real(*size, dtype=dtype, **options)

    monkeypatch.setattr(torch, "zeros", zeros)
    message = r"'cpu' cannot compute in torch.float64; .* as dataset.to\(torch.float32\)"
    with pytest.raises(ValueError, match=message):
        train(small(), **SHORT)
    train(small().to(torch.float32), **SHORT)
