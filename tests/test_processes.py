"""Functions that choose their own number of threads leave the caller's as it was."""

import importlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from dlutils import diffusion, flows
from dlutils.data.datasets import Dataset
from dlutils.estimators import coordinates, held_out, smoothing, yardsticks
from dlutils.flows import adjoint
from dlutils.processes import MANY, few_threads


@pytest.fixture
def two_threads():
    """Two for the caller, of PyTorch and of BLAS, whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with threadpool_limits(2, user_api="blas"):
        yield
    torch.set_num_threads(before)


def threads():
    """Of PyTorch, and of every BLAS in this process."""
    blas = [lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"]
    assert blas
    return {torch.get_num_threads(), *blas}


@pytest.mark.parametrize(("n", "threads"), [(10, 1), (MANY, 2)])
@pytest.mark.parametrize("solve", [adjoint.log_likelihood, adjoint.mean_log_likelihood])
def test_solves_of_few_points_take_one_thread(two_threads, solve, n, threads):
    seen = set()

    def drift(x, t):
        seen.add(torch.get_num_threads())
        return 0.1 * x

    with torch.no_grad():
        solve(drift, y=torch.zeros(n), n_steps=2)
    assert seen == {threads}
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_errors_give_the_threads_back(two_threads, error):
    @few_threads
    def broken(y):
        assert torch.get_num_threads() == 1
        raise error

    with pytest.raises(error):
        broken(torch.zeros(3))
    assert torch.get_num_threads() == 2


DATA = Dataset.from_samples(np.random.default_rng(0).normal(size=200))
SHORT = {"n_iterations": 2, "progress": False}
FITS = {  # what is called, and where in it the threads are looked at
    "ODE": (lambda: flows.train(DATA, **SHORT), "dlutils.flows.fitting.check_drift"),
    "auto": (lambda: flows.train(DATA, "auto", **SHORT), "dlutils.flows.choice.DataSource"),
    "matched": (lambda: flows.flow_matching(DATA), "torch.linalg.solve"),
    "SDE": (lambda: diffusion.train(DATA, **SHORT), "dlutils.diffusion.fitting.build_sde"),
    "solved": (lambda: diffusion.least_squares(DATA), "dlutils.diffusion.quadratic.solveh_banded"),
    "smooth": (lambda: smoothing.fit(DATA.train), "torch.linalg.inv"),
    "EM": (lambda: yardsticks.em_mixture(DATA.train), "dlutils.estimators.yardsticks._em"),
    "penalised": (
        lambda: yardsticks.penalized(DATA.train),
        "dlutils.estimators.yardsticks.cho_solve_banded",
    ),
    "coordinate": (lambda: coordinates.bends_for(DATA.train), "torch.linalg.inv"),
    "rivals": (lambda: held_out.rivals(DATA), "dlutils.estimators.yardsticks._em"),
}


@pytest.mark.parametrize("name", FITS)
def test_every_fit_takes_one_thread_of_pytorch_and_of_blas(two_threads, monkeypatch, name):
    fit, target = FITS[name]
    module, _, attribute = target.rpartition(".")
    function, seen = getattr(importlib.import_module(module), attribute), set()

    def looked_at(*args, **options):
        seen.update(threads())
        return function(*args, **options)

    monkeypatch.setattr(target, looked_at)
    assert threads() == {2}
    fit()
    assert seen == {1}
    assert threads() == {2}


count = few_threads(lambda y: torch.get_num_threads())


def test_many_points_inside_get_the_callers_threads(two_threads):
    outer = few_threads(lambda: (count(torch.zeros(MANY)), torch.get_num_threads()))
    assert outer() == (2, 1)


def test_a_thread_beside_a_call_has_a_caller_of_its_own(two_threads):
    def beside():
        torch.set_num_threads(3)
        return count(torch.zeros(MANY))

    with ThreadPoolExecutor(1) as pool:
        assert few_threads(lambda: pool.submit(beside).result())() == 3
    assert torch.get_num_threads() == 2
