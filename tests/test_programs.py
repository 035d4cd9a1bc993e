"""The few lines that ODE.ipynb and SDE.ipynb show: they give what the package gives, to rounding.

Their checks are also shown to fail on a wrong program.
"""

import nbformat
import pytest
import torch

from conftest import ROOT
from dlutils.diffusion.fitting import train as train_sde
from dlutils.flows.fitting import train as train_ode


def program(name, until, settings, right="", wrong=""):
    """Execute a notebook's code cells from the first to the one with the id `until`."""
    scope, hits = {}, 0
    for cell in nbformat.read(ROOT / f"{name}.ipynb", 4).cells:
        if cell.cell_type == "code":
            hits += bool(right) and right in cell.source
            source = cell.source.replace(right, wrong) if right else cell.source
            exec(compile(source, f"{name}, {cell.id}", "exec"), scope)
            if "parameters" in cell.metadata.get("tags", []):
                scope |= settings
            if cell.id == until:
                assert hits == bool(right), "the mutation should hit one cell"
                return scope
    raise AssertionError(f"no cell {until!r} in {name}.ipynb")


def same(found, wanted):
    """Whether two nets have the same weights, to rounding."""
    pairs = zip(found.parameters(), wanted.parameters(), strict=True)
    return all(torch.allclose(p, q, rtol=0, atol=1e-9) for p, q in pairs)


@pytest.mark.parametrize("seed", [0, 3])
def test_ten_steps_of_the_odes_loop_are_those_of_the_package(seed):
    ours = program("ODE", "training", {"SEED": seed, "N_ITERATIONS": 10, "N_STEPS": 20})
    theirs = train_ode(
        ours["dataset"], "mlp", n_steps=20, seed=seed, standardize=False, prior_precision=0.0,
        n_iterations=10, learning_rate=0.05, progress=False,
    )  # fmt: skip
    assert theirs.history.train == pytest.approx(ours["history"].train, abs=1e-10)
    assert theirs.history.val == pytest.approx(ours["history"].val, abs=1e-10)
    assert theirs.history.val_iteration == ours["history"].val_iteration
    assert same(ours["f"], theirs.drift)


@pytest.mark.parametrize("seed", [0, 3])
def test_ten_steps_of_the_sdes_loop_are_those_of_the_package(seed):
    ours = program("SDE", "training", {"SEED": seed, "N_ITERATIONS": 10, "DELTA": 0.02})
    theirs = train_sde(
        ours["dataset"], seed=seed, delta=0.02, n_iterations=10, learning_rate=0.05, progress=False
    )
    assert theirs.history.train == pytest.approx(ours["history"].train, abs=1e-8)
    assert theirs.history.val == pytest.approx(ours["history"].val, abs=1e-6)
    assert theirs.history.val_iteration == ours["history"].val_iteration
    assert same(ours["model"], theirs.model)


WRONG = [
    ("ODE", "check-linear", "return x + h * F, h * G", "return x - h * F, h * G"),
    ("ODE", "check-linear", "return x + h * F, h * G", "return x + h * F, -h * G"),
    ("ODE", "check-linear", "h, log_det = (t1 - t0) /", "h, log_det = (t0 - t1) /"),
    ("ODE", "check-linear", ".log_prob(x_0) + log_det", ".log_prob(x_0) - log_det"),
    ("ODE", "check-linear", ".log_prob(x_0) + log_det", ".log_prob(x_0)"),
    ("SDE", "check-bound", "- drift_to(y, x, t, sigma)) **", "+ drift_to(y, x, t, sigma)) **"),
    ("SDE", "check-bound", "** 2 / (2 * sigma**2)", "** 2 / sigma**2"),
    ("SDE", "check-bound", "eps - sigma**2 * eps /", "eps + sigma**2 * eps /"),
    ("SDE", "check-bound", "alpha_dot + beta_dot * eps -", "alpha_dot -"),
    ("SDE", "check-bound", "- prior_kl(y) - loss @", "- prior_kl(y) + loss @"),
    ("SDE", "check-bound", "(w_u * dt_du)", "w_u"),
    ("SDE", "check-bound", "return t / c**2 * x +", "return t / c * x +"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "check", "right", "wrong"), WRONG)
def test_the_check_below_a_function_catches_a_wrong_one(name, check, right, wrong):
    with pytest.raises(AssertionError, match=r"^(?!the mutation)"):
        program(name, check, {}, right, wrong)


@pytest.mark.parametrize(("name", "check"), sorted({row[:2] for row in WRONG}))
def test_the_checks_let_the_right_program_pass(name, check):
    program(name, check, {})
