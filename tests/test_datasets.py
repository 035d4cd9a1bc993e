from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.integrate import cumulative_simpson, simpson

from dlutils.data.datasets import DISTRIBUTIONS, Dataset, compress, load_dataset, make_dataset
from dlutils.estimators.view import seen_in

FALSE_ALARM = 1e-6  # probability that a right sampler fails one of the random tests
SMOOTH = ["student_t", "laplace_mixture", *(f"marron_wand_{k:02d}" for k in range(1, 16))]
LAPLACE = stats.laplace(0, 0.5).pdf
SCIPYS = {
    "gaussian": stats.norm(1, 0.5).pdf,
    "laplace": stats.laplace(0, 1).pdf,
    "gaussian_mixture": lambda y: (
        0.3 * stats.norm(-2, 0.5).pdf(y) + 0.7 * stats.norm(1, 0.8).pdf(y)
    ),
    "laplace_mixture": lambda y: 0.5 * LAPLACE(y + 1.5) + 0.5 * LAPLACE(y - 1.5),
    "student_t": stats.t(5).pdf,
    "marron_wand_04": lambda y: (2 * stats.norm.pdf(y) + stats.norm(0, 0.1).pdf(y)) / 3,
    "uniform": stats.uniform(-1, 2).pdf,
}


@pytest.mark.parametrize("name", SCIPYS)
def test_density_is_scipys(name):
    dataset = make_dataset(name)
    y = np.linspace(*dataset.support, 1001)
    np.testing.assert_allclose(dataset.log_prob(y).exp(), SCIPYS[name](y), rtol=1e-12)


@pytest.mark.parametrize("name", SMOOTH)
def test_mass_samples_and_integral_by_simpsons_rule(name):
    dataset = make_dataset(name)
    y = np.linspace(*dataset.support, 200_001)
    log_p = dataset.log_prob(y).numpy()
    cdf = cumulative_simpson(np.exp(log_p), x=y, initial=0)
    assert cdf[-1] == pytest.approx(1 - 2e-6, abs=1e-7)
    test = stats.kstest(dataset.train.numpy(), lambda v: np.interp(v, y, cdf))
    assert test.pvalue > FALSE_ALARM
    if name == "student_t":
        expected = -stats.t(5).entropy()
    else:
        y = np.linspace(*np.array(dataset.support) * 2.5, 400_001)
        log_p = dataset.log_prob(y).numpy()
        expected = simpson(np.exp(log_p) * log_p, x=y)
    assert dataset.population_log_likelihood == pytest.approx(expected, abs=1e-6)


def test_kolmogorov_smirnov_would_notice_another_density():
    y = make_dataset("gaussian").train.numpy()
    assert stats.kstest(y, stats.norm(1.05, 0.5).cdf).pvalue < FALSE_ALARM


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_expected_log_likelihood_agrees_with_the_population(name):
    dataset = make_dataset(name, 2, 2)
    z = stats.norm.isf(FALSE_ALARM / 2)
    off = abs(dataset.expected_log_likelihood - dataset.population_log_likelihood)
    assert off <= z * dataset.standard_error + 1e-9
    log_p = dataset.log_prob(dataset.test).numpy()
    assert dataset.standard_error == pytest.approx(stats.sem(log_p), abs=1e-12)


def components(number):
    distribution = DISTRIBUTIONS[f"marron_wand_{number:02d}"][1]()
    parts = distribution.component_distribution
    return tuple(
        v.numpy() for v in (distribution.mixture_distribution.probs, parts.loc, parts.scale)
    )


@pytest.mark.parametrize(("number", "first"), [(14, -31 / 21 - 3 * 32 / 63), (15, -3)])
def test_marron_wand_combs_tile_the_interval(number, first):
    """The teeth have weight proportional to width, and together cover [-3, 3] at three sds."""
    weights, locs, scales = components(number)
    assert np.ptp(weights / scales) < 1e-12
    assert locs[0] - 3 * scales[0] == pytest.approx(first)
    assert np.allclose(locs[1:3] - 3 * scales[1:3], locs[:2] + 3 * scales[:2])


def test_marron_wand_claws():
    weights, _, scales = components(12)
    assert np.allclose(weights[1:] / scales[1:], weights[1] / scales[1])
    assert weights[1:].sum() == pytest.approx(0.5)
    assert np.allclose(components(10)[1], [0, -1, -0.5, 0, 0.5, 1])
    assert np.allclose(components(10)[2], [1] + [0.1] * 5)
    assert np.allclose(components(11)[1], [-1, 1, -1.5, -1, -0.5, 0, 0.5, 1, 1.5])
    assert np.allclose(components(13)[2], [2 / 3] * 2 + [0.01] * 3 + [0.07] * 3)
    assert np.allclose(components(3)[1], 3 * (components(3)[2] - 1))


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


def test_data_in_single_precision_are_the_same_rounded():
    double = make_dataset("laplace_mixture", 100, 50, 20)
    single = double.to(torch.float32)
    for part in ("train", "val", "test"):
        assert torch.equal(getattr(single, part), getattr(double, part).float())
    for ours, theirs in zip(seen_in(single), seen_in(double), strict=True):
        torch.testing.assert_close(ours.x, theirs.x.float())
    assert torch.equal(single.to(torch.float64).train, single.train.double())
    assert single.distribution is double.distribution


def test_what_lies_inside_stays_inside_in_single_precision():
    """Points at an end of the density, and at a bound of a user's own, are not rounded onto it."""
    data = make_dataset("uniform", 100, 50, 20)
    near = torch.tensor([1 - 1e-12, -1 + 1e-12, 0.5], dtype=torch.float64)
    assert near.float().abs().max() == 1
    assert replace(data, test=near).to(torch.float32).test.double().abs().max() < 1
    y = np.random.default_rng(0).uniform(3, 5, 100)
    y[:10] = 5 - 1e-12
    own = Dataset.from_samples(y, support=(3, 5)).to(torch.float32)
    assert own.points.max() < 5
    x = seen_in(own)[0].x
    assert x.dtype == torch.float32
    assert x.abs().max() < 30


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


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([], "must not be empty"),
        ([1.0, np.nan, 2.0, np.inf], "2 of 4 values are not, the first is nan at index 1"),
        ([1.0, -1e101, 2.0], "between ±1e.100: 1 of 3 values are not, the first is -1e.101 at"),
        ([2.0] * 9, "must not be constant: all 9 values are 2"),
        ([1.0, 2.0, 3.0], "3 values are too few"),
    ],
)
def test_from_samples_says_what_is_wrong(y, message):
    with pytest.raises(ValueError, match=message):
        Dataset.from_samples(y)


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


def test_compression_error_falls_as_the_fourth_power_of_the_width():
    slopes = np.log2(compression_errors(compress)[:-1] / compression_errors(compress)[1:])
    assert np.all(np.abs(slopes - 4) < 0.3), slopes


def test_bin_means_alone_would_fail_that_test():
    def bin_means(y, n_bins):
        count, edges = np.histogram(y, n_bins)
        total, _ = np.histogram(y, edges, weights=y)
        full = count > 0
        return torch.from_numpy(total[full] / count[full]), torch.from_numpy(count[full] + 0.0)

    errors = compression_errors(bin_means)
    assert np.all(np.log2(errors[:-1] / errors[1:]) < 2.5)


def test_load_dataset_takes_a_name_or_a_file(tmp_path):
    assert torch.equal(load_dataset("laplace", seed=3).train, make_dataset("laplace", seed=3).train)
    path = tmp_path / "a.csv"
    path.write_text("x,y\n" + "\n".join(f"{k},{k % 7}" for k in range(50)) + "\n50,\n")
    own = load_dataset(f"{path}:y", seed=3, drop_missing=True)
    assert own.distribution is None
    assert (own.title, len(own.train)) == ("A, y", 35)
    with pytest.raises(ValueError, match="1 of 51 values are missing"):
        load_dataset(f"{path}:y")
    with pytest.raises(ValueError, match=r"unknown dataset 'a.xls'; choose from .* ends in \.csv"):
        load_dataset("a.xls")
    with pytest.raises(ValueError, match="non-negative integer"):
        load_dataset("laplace", seed=-1)


def test_the_name_of_a_column_may_have_a_slash(tmp_path):
    (tmp_path / "cars.csv").write_text("no,speed m/s\n" + "\n".join(f"{k},{k}" for k in range(9)))
    assert Dataset.from_file(f"{tmp_path / 'cars.csv'}:speed m/s").title == "Cars, speed m/s"
