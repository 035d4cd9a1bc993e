"""Training elsewhere than on the CPU brings back the same model."""

import pytest
import torch

from conftest import ROOT
from dlutils.data.datasets import make_dataset
from dlutils.notebook import load
from dlutils.training import check_device

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


CHOICES = [
    *(("ODE", {"drift": drift}) for drift in ("mlp", "fourier", "concat_squash", "sigmoid_basis")),
    ("ODE", {"gradient": "backprop", "batch_size": 64}),
    ("SDE", {"path": "variance_preserving", "diffusion": "optimal", "drift": "free"}),
    ("SDE", {"path": "learned", "diffusion": "learned_in_x_and_t", "drift": "predict_y"}),
    ("SDE", {}),
]


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("name", "choice"), CHOICES)
def test_the_gpu_agrees_with_the_cpu(name, choice, dtype):
    dataset = make_dataset("laplace_mixture", n_train=2000).to(dtype)
    train = load(ROOT / f"{name}.ipynb").train
    found = []
    for device in ("cpu", "cuda"):
        model = train(dataset, device=device, n_iterations=40, progress=False, **choice)
        found.append(model.log_likelihood(dataset.test))
        assert found[-1].device.type == "cpu"
    assert (found[0] - found[1]).abs().max() < 0.02


@pytest.mark.parametrize("name", ["ODE", "SDE"])
def test_a_device_that_is_not_there_is_named(name):
    for device in ("gpu", "cuda:99"):
        with pytest.raises(ValueError, match=f"on the device '{device}'; choose from cpu"):
            load(ROOT / f"{name}.ipynb").train(make_dataset("gaussian"), device=device)
    check_device("cpu")
