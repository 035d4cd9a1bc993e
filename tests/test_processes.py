"""Functions that choose their own number of threads leave the caller's as it was."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from dlutils.flows import adjoint
from dlutils.processes import MANY, few_threads


@pytest.fixture
def two_threads():
    """Two for the caller, whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


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
