"""Whatever is asked for: a finite result or an error that says why, never a silent NaN."""

import math

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from conftest import HANGS, ode_definitions, sde_definitions
from dlutils.data.datasets import DISTRIBUTIONS, Dataset, make_dataset
from dlutils.evaluation import compare

EXAMPLES = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "derandomize": True,
    "phases": [Phase.generate],  # shrinking a configuration takes minutes and says little
}
ODE, SDE = ode_definitions(), sde_definitions()
REASONS = (
    "folds the line", "not finite", "the drift explodes", "try a smaller learning_rate", "must be",
    "must not", "must keep", "must span", "too few", "is too narrow", "are too coarse",
)  # fmt: skip


def numbers(low, high):
    return st.floats(low, high, allow_nan=False)


data = st.one_of(
    st.builds(
        make_dataset,
        st.sampled_from(list(DISTRIBUTIONS)),
        n_train=st.integers(2, 300) | st.sampled_from([10_000, 100_000]),
        n_val=st.integers(2, 50),
        n_test=st.integers(2, 50),
        seed=st.integers(0, 100),
    ),
    st.builds(
        lambda y, loc, scale: (y, loc, scale),
        st.lists(numbers(-5, 5), min_size=1, max_size=60),
        numbers(-1e6, 1e6),
        st.sampled_from([1e-6, 1e-3, 1.0, 1e3, 1e6]),
    ),
)


def as_dataset(drawn):
    if isinstance(drawn, Dataset):
        return drawn
    y, loc, scale = drawn
    return Dataset.from_samples(torch.tensor(y, dtype=torch.float64) * scale + loc)


def check(train_model):
    """Train and evaluate; the model's numbers are finite, or the error gives a reason."""
    try:
        dataset, model = train_model()
        on_test = model.log_likelihood(dataset.test)
        comparison = compare(dataset, model.log_likelihood, 401)
    except ValueError as error:
        if not any(known in str(error) for known in REASONS):
            raise AssertionError("the error gives no reason") from error
        return
    assert not on_test.isnan().any()
    assert (on_test < torch.inf).all()
    assert comparison.mass >= 0
    assert all(map(math.isfinite, model.history.train))


@settings(**EXAMPLES)
@given(
    drawn=data,
    drift=st.sampled_from(list(ODE.DRIFTS)),
    method=st.sampled_from(["euler", "rk2", "rk4"]),
    n_steps=st.integers(1, 12),
    logdet=st.sampled_from(["trace", "map"]),
    standardize=st.booleans(),
    n_bins=st.integers(1, 40),
    batch_size=st.none() | st.integers(1, 64),
    learning_rate=st.sampled_from([1e-6, 0.02, 1.0, 1e3]),
    prior_precision=st.none() | numbers(0, 1e6),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 10),
)
def test_any_ode(drawn, drift, method, n_steps, dtype, seed, **options):
    def train_model():
        dataset = as_dataset(drawn).to(dtype)
        settings = options | {"n_iterations": 3, "validate_every": 1, "progress": False}
        return dataset, ODE.train(dataset, drift, method, n_steps, seed, **settings)

    check(train_model)


@settings(**EXAMPLES)
@given(
    drawn=data,
    path=st.sampled_from(list(SDE.PATHS)),
    diffusion=st.sampled_from(list(SDE.DIFFUSIONS)),
    drift=st.sampled_from(list(SDE.DRIFTS)),
    t_sampler=st.sampled_from(list(SDE.T_SAMPLERS)),
    delta=st.sampled_from([0.01, 0.1, 0.5]),
    batch_size=st.integers(1, 64),
    learning_rate=st.sampled_from([1e-6, 0.02, 1.0, 1e3]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 10),
)
def test_any_sde(drawn, path, diffusion, drift, dtype, **options):
    def train_model():
        dataset = as_dataset(drawn).to(dtype)
        settings = options | {"n_iterations": 3, "validate_every": 3, "progress": False}
        model = SDE.train(dataset, path, diffusion, drift, **settings)
        return dataset, SDE.replace(model, n_steps=10)

    check(train_model)


@pytest.mark.filterwarnings("default")
def test_interrupt_in_a_kernel_keeps_model_and_curve(kernel):
    """Kernel → Interrupt in the middle of a training."""
    manager, client = kernel

    def succeeds(message):
        reply = client.get_shell_msg(timeout=HANGS)
        while reply["parent_header"]["msg_id"] != message:  # the kernel was asked whether it lives
            reply = client.get_shell_msg(timeout=HANGS)
        assert reply["content"]["status"] == "ok", reply["content"]

    setup = (
        "from dlutils.notebook import load; from dlutils.data.datasets import make_dataset\n"
        "ODE, data = load('ODE.ipynb'), make_dataset('gaussian', n_train=100)\n"
        "def callback(model, history):\n"
        "    if len(history.val) == 3: print('three validations')"
    )
    succeeds(client.execute(setup))
    endless = "n_iterations=1_000_000, validate_every=3, callback=callback"
    training = client.execute(f"model = ODE.train(data, {endless})")
    printed = ""
    while "three validations" not in printed:
        message = client.get_iopub_msg(timeout=HANGS)
        printed += message["content"].get("text", "")
    manager.interrupt_kernel()
    succeeds(training)  # the cell ends as if the training had
    after = (
        "assert model.history.stopped.startswith('interrupted at iteration')\n"
        "assert len(model.history.train) > 6 and len(model.history.val) > 2\n"
        "assert model.log_likelihood(data.test).isfinite().all()"
    )
    succeeds(client.execute(after))
