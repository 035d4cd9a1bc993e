"""The net that there is most evidence for, without a validation set that could tell."""

from dataclasses import replace

import pytest
import torch

from dlutils.data.datasets import Dataset, make_dataset
from dlutils.flows.choice import automatic, effective_parameters, evidence

PROPER = {"method": "rk4", "n_steps": 5, "logdet": "map", "optimizer": "natural", "progress": False}
SHORT = PROPER | {"n_iterations": 10}


@pytest.fixture(scope="module")
def linear(ode):
    """A sample without a known density, and a linear drift with hardly a prior."""
    data = Dataset.from_samples(make_dataset("gaussian", 1000, 2, 2).train, seed=1)
    return ode.train(data, "linear", prior_precision=1e-6, **PROPER), data


def test_a_linear_drift_has_two_parameters_and_a_strong_prior_none(linear):
    assert effective_parameters(*linear, 1e-6) == pytest.approx(2, abs=0.01)
    assert effective_parameters(*linear, 1e9) < 0.01


def test_the_evidence_is_all_points_log_likelihood_less_the_parameters(linear):
    """Each point three times is three times the evidence, but for the parameters."""
    flow, data = linear
    total = sum(flow.log_likelihood(y).sum().item() for y in (data.train, data.val))
    assert evidence(flow, data, 1e-6) == pytest.approx(total - 2, abs=0.02)
    three = {part: torch.full((len(getattr(data, part)),), 3.0) for part in ("train", "val")}
    thrice = evidence(flow, replace(data, weights=three), 1e-6)
    assert thrice == pytest.approx(3 * total - 2, abs=0.05)


def test_auto_takes_the_net_with_most_evidence(ode, capsys):
    """Another way of training is left as it is."""
    data = make_dataset("laplace_mixture", 1000, 100, 20)
    flow = ode.train(data, "auto", **SHORT)
    said = capsys.readouterr().out
    chosen = "sigmoid_basis" if "Sigmoid" in type(flow.drift).__name__ else "mlp"
    assert said.startswith(f"drift: {chosen}, by Akaike's criterion ")
    assert "nats before" in said
    each = {
        net: evidence(ode.train(data, net, prior_precision=k, **SHORT), data, k)
        for net, k in (("mlp", 1.0), ("sigmoid_basis", 30.0))
    }
    assert max(each, key=each.get) == chosen
    assert "drift:" not in (ode.train(data, "linear", **SHORT) and capsys.readouterr().out)


def test_with_no_net_left_the_error_names_them():
    def train(dataset, drift, **options):
        raise ValueError("a step folds the line")

    with pytest.raises(ValueError, match="the steps of all nets fold the line: mlp, fourier"):
        automatic(mlp=1.0, fourier=2.0)(train)(make_dataset("gaussian", 50, 20, 20), "auto")
