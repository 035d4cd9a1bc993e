"""The net that there is most evidence for, without a validation set that could tell."""

import pytest
import torch

from dlutils.data.datasets import Dataset, make_dataset
from dlutils.flows.choice import automatic, effective_parameters, evidence

PROPER = {"method": "rk4", "n_steps": 5, "logdet": "map", "optimizer": "natural", "progress": False}
BRIEF = PROPER | {"n_iterations": 10}


def test_a_linear_drift_has_two_parameters_and_a_strong_prior_none(ode):
    data = make_dataset("gaussian", 2000, 200, 20)
    flow = ode.train(data, "linear", prior_precision=1e-6, **PROPER)
    assert effective_parameters(flow, data, 1e-6) == pytest.approx(2, abs=0.01)
    assert effective_parameters(flow, data, 1e9) < 0.01


def test_the_evidence_is_all_points_log_likelihood_less_the_parameters(ode):
    data = Dataset.from_samples(make_dataset("gaussian", 400, 2, 2).train, seed=1)
    flow = ode.train(data, "linear", prior_precision=1e-6, **PROPER)
    total = sum(flow.log_likelihood(y).sum().item() for y in (data.train, data.val))
    assert evidence(flow, data, 1e-6) == pytest.approx(total - 2, abs=0.02)


def test_weights_count_in_the_evidence(ode):
    """Each point three times is three times the evidence, but for the parameters."""
    y = make_dataset("gaussian", 300, 2, 2).train
    data = Dataset.from_samples(y)
    flow = ode.train(data, "linear", prior_precision=1e-6, **PROPER)
    three = {part: torch.full((len(getattr(data, part)),), 3.0) for part in ("train", "val")}
    heavy = Dataset("x", "x", data.train, data.val, data.test, data.support, weights=three)
    once, thrice = (evidence(flow, d, 1e-6) for d in (data, heavy))
    assert thrice == pytest.approx(3 * (once + 2) - 2, abs=0.05)


def test_auto_takes_the_net_with_most_evidence(ode, capsys):
    """Another way of training is left as it is."""
    data = make_dataset("laplace_mixture", 1000, 100, 20)
    flow = ode.train(data, "auto", **BRIEF)
    said = capsys.readouterr().out
    chosen = "sigmoid_basis" if "Sigmoid" in type(flow.drift).__name__ else "mlp"
    assert said.startswith(f"drift: {chosen}, by Akaike's criterion ")
    assert "nats before" in said
    each = {
        net: evidence(ode.train(data, net, prior_precision=k, **BRIEF), data, k)
        for net, k in (("mlp", 1.0), ("sigmoid_basis", 30.0))
    }
    assert max(each, key=each.get) == chosen
    assert "drift:" not in (ode.train(data, "linear", **BRIEF) and capsys.readouterr().out)


def test_an_unknown_net_is_refused_as_before(ode):
    with pytest.raises(ValueError, match="unknown drift 'magic'; choose from linear, mlp"):
        ode.train(make_dataset("gaussian", 50, 20, 20), "magic")


def test_with_no_net_left_the_error_names_them():
    def train(dataset, drift, **options):
        raise ValueError("a step folds the line")

    with pytest.raises(ValueError, match="the steps of all nets fold the line: mlp, fourier"):
        automatic(mlp=1.0, fourier=2.0)(train)(make_dataset("gaussian", 50, 20, 20), "auto")
