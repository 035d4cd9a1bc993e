"""Data sets: their streams and types, what is known of them, and their compression."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from dlutils.data.datasets import Dataset, compress, load_dataset, make_dataset
from dlutils.estimators.view import seen_in


@pytest.mark.parametrize("name", ["laplace_mixture", "student_t", "benchden_10", "benchden_26"])
def test_expected_log_likelihood_agrees_with_the_population(name):
    dataset = make_dataset(name, 2, 2)
    off = abs(dataset.expected_log_likelihood - dataset.population_log_likelihood)
    assert off <= stats.norm.isf(0.5e-6) * dataset.standard_error
    log_p = dataset.log_prob(dataset.test).numpy()
    assert dataset.standard_error == pytest.approx(stats.sem(log_p), abs=1e-12)


def test_same_seed_same_numbers_whatever_ran_before():
    first = make_dataset("laplace_mixture", seed=3)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    torch.set_default_dtype(torch.float64)
    again = make_dataset("laplace_mixture", n_train=50, seed=3)
    assert torch.equal(torch.get_rng_state(), state), "the global random state is left alone"
    assert torch.equal(first.test, again.test)
    assert torch.equal(first.val, again.val)
    assert not torch.equal(first.test, make_dataset("laplace_mixture", seed=4).test)
    equal = make_dataset("laplace_mixture", 50, 50, 50, seed=3)
    assert len(equal.points.unique()) == 150, "each part has a stream of its own"


def test_single_precision_rounds_but_not_onto_an_end_or_a_bound():
    double = make_dataset("laplace_mixture", 100, 50, 20)
    single = double.to(torch.float32)
    assert torch.equal(single.train, double.train.float())
    assert torch.equal(single.to(torch.float64).train, single.train.double())
    assert single.distribution is double.distribution
    data = make_dataset("uniform", 100, 50, 20)
    near = torch.tensor([1 - 1e-12, -1 + 1e-12, 0.5], dtype=torch.float64)
    assert near.float().abs().max() == 1
    assert replace(data, test=near).to(torch.float32).test.double().abs().max() < 1
    y = np.random.default_rng(0).uniform(3, 5, 100)
    y[:10] = 5 - 1e-12
    own = Dataset.from_samples(y, support=(3, 5)).to(torch.float32)
    x = seen_in(own)[0].x
    assert own.points.max() < 5
    assert (x.dtype, x.abs().max() < 30) == (torch.float32, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "gauss"}, r"'gauss'; choose from gaussian, .* uniform, \S+_01 \.\.\. "),
        ({"name": "gaussian", "n_train": 0}, "n_train must be an integer of at least 2, not 0"),
        ({"name": "gaussian", "n_test": 2.5}, "n_test must be an integer of at least 2, not 2.5"),
        ({"name": "gaussian", "seed": -1}, "non-negative integer, not -1"),
    ],
)
def test_make_dataset_says_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_dataset(**arguments)


def test_from_samples_keeps_every_value_and_guesses_no_density():
    y = torch.arange(100.0)
    dataset = Dataset.from_samples(y, "my data", seed=1)
    assert [len(part) for part in (dataset.train, dataset.val, dataset.test)] == [70, 10, 20]
    together = torch.cat([dataset.train, dataset.val, dataset.test])
    assert torch.equal(together.sort().values, y.double())
    assert torch.equal(dataset.train, Dataset.from_samples(y, seed=1).train)
    assert dataset.support[0] < 0 < 99 < dataset.support[1]
    for use in (
        lambda: dataset.log_prob(y),
        lambda: dataset.expected_log_likelihood,
        lambda: dataset.standard_error,
        lambda: dataset.population_log_likelihood,
    ):
        with pytest.raises(ValueError, match="true density of 'my data' is unknown"):
            use()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("name", "n_bins"), [("gaussian", 1), ("student_t", 7), ("uniform", 64)])
def test_compress_conserves_mass_and_three_moments(name, n_bins, weighted):
    y = make_dataset(name, 2000).train
    w = torch.linspace(0.1 if weighted else 1, 1, len(y), dtype=torch.float64)
    nodes, weights = compress(y, n_bins, w if weighted else None)
    assert (weights > 0).all()
    assert len(nodes) <= 2 * n_bins
    assert (nodes.diff() > 0).all()
    assert y.min() <= nodes.min()
    assert nodes.max() <= y.max()
    for power in range(4):
        tolerance = 1e-10 * (w @ y.abs().pow(power))
        assert (weights @ nodes**power - w @ y**power).abs() <= tolerance, f"moment {power}"


@pytest.mark.parametrize("name", ["marron_wand_10", "student_t"])
def test_no_bin_is_twice_as_wide_or_twice_as_full_as_the_mean(name):
    y, n_bins = make_dataset(name).train, 32
    nodes, weights = compress(y, n_bins)
    most = 2 * len(y) / n_bins + 2
    assert weights.max() <= most
    widest = 2 * (y.max() - y.min()) / n_bins
    empty = y.sort().values.diff().max()
    assert nodes.diff().max() <= 2 * widest + empty  # from a bin to the next full one
    if name == "student_t":  # most of its points lie in a few of the bins of equal width
        assert torch.histogram(y, n_bins).hist.max() > most


def compression_errors(rule):
    """Largest error of the means of cos(3 y + phase), for bins of half the width each time."""
    y = torch.from_numpy(stats.norm.ppf((np.arange(100_000) + 0.5) / 100_000))
    phases = torch.linspace(0, 3, 7)[:, None]
    errors = []
    for n_bins in (32, 64, 128):
        nodes, weights = rule(y, n_bins)
        mean = torch.cos(3 * nodes + phases) @ weights / weights.sum()
        errors.append((mean - torch.cos(3 * y + phases).mean(1)).abs().max())
    return np.array(errors)


def bin_means(y, n_bins):
    count, edges = np.histogram(y, n_bins)
    total, _ = np.histogram(y, edges, weights=y)
    full = count > 0
    return torch.from_numpy(total[full] / count[full]), torch.from_numpy(count[full] + 0.0)


def test_compression_error_falls_as_the_fourth_power_of_the_width():
    slopes = -np.diff(np.log2(compression_errors(compress)))
    assert np.all(np.abs(slopes - 4) < 0.3), slopes
    assert np.all(-np.diff(np.log2(compression_errors(bin_means))) < 2.5), "means alone would fail"


def test_load_dataset_takes_a_name_or_a_file(tmp_path):
    assert torch.equal(load_dataset("laplace", seed=3).train, make_dataset("laplace", seed=3).train)
    path = tmp_path / "a.csv"
    path.write_text("x,speed m/s\n" + "\n".join(f"{k},{k % 7}" for k in range(50)) + "\n50,\n")
    own = load_dataset(f"{path}:speed m/s", seed=3, drop_missing=True)
    with pytest.raises(ValueError, match="1 of 51 values are missing"):
        load_dataset(f"{path}:2")
    assert own.distribution is None
    assert (own.name, own.title, len(own.train)) == ("a, speed m/s", "A, speed m/s", 35)
    assert own.description.endswith("under the header 'speed m/s', 1 missing left out")
    same = Dataset.from_samples(np.arange(50) % 7, seed=3)
    assert own.train.tolist() == same.train.tolist()
    assert load_dataset(path.with_name("a.csv:1"), drop_missing=True).name == "a, 1"
    path.write_text("Report\n\nh\xf6he;b\n" + "1.234;2,5\n7;1,5\n8;3,5\n" * 9, encoding="latin-1")
    how = {"thousands": ".", "encoding": "cp1252", "skip_rows": 2, "decimal": ","}
    own = load_dataset(f"{path}:höhe", **how)
    assert own.points.max() == 1234
    for source, options, message in (
        ("a.xls", {}, r"unknown dataset 'a.xls'; choose from .* ends in \.csv"),
        ("laplace", {"seed": -1}, "non-negative integer"),
        ("gaussian", {"support": (0, 1)}, r"support = \(0, 1\) is for a file of your own"),
        ("gaussian", {"thousands": ","}, r"thousands = ',' is for a file of your own"),
        ("gaussian", {"skip_rows": 0}, r"skip_rows = 0 is for a file of your own"),
    ):
        with pytest.raises(ValueError, match=message):
            load_dataset(source, **options)
