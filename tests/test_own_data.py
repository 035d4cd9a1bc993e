"""A user's own data: ties, rounding, bounds and weights are what they are said to be."""

import math

import numpy as np
import pytest
import torch

from dlutils.data.datasets import Dataset, load_dataset
from dlutils.data.own_data import Ties, check_rounding, check_sample, evenly, intervals, spread
from dlutils.estimators.view import units_of
from dlutils.seeding import seeded


def test_ties_are_counted_and_their_step_is_found():
    counts = torch.poisson(torch.full((1000,), 3.0), generator=torch.Generator().manual_seed(0))
    ties = Ties.of(counts)
    assert ties.repeated > 0.99
    assert ties.value in (2.0, 3.0)
    assert ties.share == pytest.approx((counts == ties.value).float().mean().item())
    assert ties.is_atom
    assert ties.step == 1.0
    assert "ROUNDING = 1?" in str(ties)


@pytest.mark.parametrize(
    ("dtype", "step", "shift"),
    [
        (torch.float32, 0.1, 37.0),
        (torch.float64, 5.0, 2.0),
        (torch.float64, 0.01, 1e6),
        (torch.float64, None, 0.0),
    ],
)
def test_the_step_of_rounding(dtype, step, shift):
    with seeded(0, dtype=dtype):
        y = torch.randn(3000).mul(20)
    ties = Ties.of(y.round() * step + shift if step else y)
    assert ties.step == (pytest.approx(step, rel=1e-3) if step else None)
    assert (str(ties) == "") is (step is None)
    assert not Ties.of(torch.tensor([1.0, 1.0, 2.0, 3.0])).is_atom, "twice is not often"


def heaps(kind, n=2000):
    """Samples of which no value has more than 3 per cent, and many are there more than once."""
    random = np.random.default_rng(0)
    y, often = random.gamma(4.0, 4.0, n), random.random(n) < 0.8
    return {
        "quarters among cents": np.where(often, np.round(4 * y) / 4, np.round(y, 2)),
        "quarters among others": np.where(often, np.round(4 * y) / 4, y),
        "single precision": np.where(often, np.round(y, 1), np.round(y, 2)).astype(np.float32),
        "eighths of 25": np.round(8 * y) * 25 / 8,
        "thousands": np.where(often, np.round(4 * y) * 1000, np.round(4000 * y)) + 500,
        "copies": np.repeat(y[: n // 10], 10),
        "copies, in thousandths": np.repeat(np.round(y[: n // 10], 3), 10),
        "any of some": np.where(often, random.choice(y[:200], n), y),
    }[kind]


@pytest.mark.parametrize(
    ("kind", "step"),
    [
        ("quarters among cents", 0.25),
        ("quarters among others", 0.25),
        ("single precision", 0.1),
        ("eighths of 25", 3.125),
        ("thousands", 1000),
        ("copies", None),
        ("copies, in thousandths", 0.001),
        ("any of some", None),
    ],
)
def test_heaps_are_told_by_their_share_in_all_and_the_step_that_is_named_can_be_given(kind, step):
    data = Dataset.from_samples(heaps(kind))
    ties = data.ties
    assert ties.share < 0.03 < 0.7 < ties.repeated
    assert ties.are_spikes
    assert ties.step == step
    assert str(ties) in data.summary()
    if step is None:
        assert "ROUNDING" not in str(ties)
        return
    assert f"multiples of {step:g}: ROUNDING = {step:g}?" in str(ties)
    given = Dataset.from_samples(heaps(kind), rounding=step)
    assert not given.ties.are_spikes
    apart = given.as_read.unique().diff() / step
    assert (apart - apart.round()).abs().max() < 1e-6
    is_coarser = "among" in kind or kind in ("single precision", "thousands")
    assert (f"% rounded to multiples of {step:g}" in given.description) is is_coarser


def test_chance_makes_no_heaps():
    """Neither in data of many digits nor in few; and a step is not made coarser by chance."""
    y = np.random.default_rng(0).normal(size=3000)
    assert not Ties.of(torch.tensor(y)).are_spikes
    assert not Ties.of(torch.tensor(y).round(decimals=5)).are_spikes
    assert Ties.of(torch.tensor(y[:200]).round(decimals=1)).step == 0.1
    few = Ties.of(torch.tensor([1.0, 1.0, 2.0, 3.0, 5.0, 5.0]))
    assert not few.are_spikes
    assert str(few) == ""


def test_what_is_rounded_to_steps_stays_inside_the_bounds():
    y = np.append(np.round(np.random.default_rng(0).uniform(0, 1.1, 300) * 4) / 4, [1.124, 1.125])
    data = Dataset.from_samples(y, rounding=0.25, support=(0, 1.125))
    low, high = intervals(data.as_read, 0.25, data.bounds)
    assert (high > low).all()
    assert data.points.max() < 1.125


def test_rounded_values_fill_their_intervals_evenly():
    y = torch.tensor([2.0, 1.0, 2.0, 2.0, 2.0])
    found = spread(y, 1.0)
    torch.testing.assert_close(found[1:2], torch.tensor([1.0]))
    torch.testing.assert_close(found[[0, 2, 3, 4]], torch.tensor([1.625, 1.875, 2.125, 2.375]))
    low, high = intervals(torch.tensor([0.0, 1.0]), 1.0, (0.0, 1.2))
    assert (low.tolist(), high.tolist()) == ([0.0, 0.5], [0.5, 1.2])


def test_weighted_quantiles():
    y, w = torch.tensor([3.0, 1.0, 2.0]), torch.tensor([1.5, 4.0, 0.5])
    assert evenly(y, w).tolist() == [1.0, 1.0, 3.0]
    assert evenly(y, None) is y
    assert evenly(y[:2], torch.tensor([3.1, 0.9])).tolist() == [3.0, 3.0], "not the last one"


Y = np.arange(-1.0, 11.0)


@pytest.mark.parametrize(
    ("y", "options", "message"),
    [
        ([], {}, "must not be empty"),
        ([1.0, np.nan, 2.0, np.inf], {}, "2 of 4 values are not, the first is nan at index 1"),
        ([1.0, -1e101, 2.0], {}, "between ±1e.100: 1 of 3 values are not, the first is -1e.101 at"),
        ([2.0] * 9, {}, "must not be constant: all 9 values are 2"),
        (Y[:5], {}, "5 values are too few"),
        (Y, {"support": (-0.5, math.inf)}, r"support \(-0.5, inf\).*: 1 of 12 .* -1.0 at index 0"),
        (Y, {"support": (-1, 20)}, r"support \(-1, 20\); on a bound.*ROUNDING.*: 1 of 12"),
        (Y, {"support": (0, 20), "rounding": 1}, r"support \(0, 20\).*: 1 of 12"),
        (Y, {"support": (3, 3)}, r"low < high, not \(3, 3\)"),
        (Y, {"support": 3}, r"support must be \(low, high\) .*, not 3"),
        (Y, {"support": "[0, x]"}, r"low < high, not '\[0, x\]'"),
        (Y, {"support": "0"}, "support must be .low, high. .*, not '0'"),
        (Y, {"rounding": 2.0}, "values rounded to 2 cannot be -1 and 0, which are 1 apart"),
        (Y, {"rounding": -1}, "rounding must be a positive number, or None, not -1"),
        (Y, {"rounding": True}, "rounding must be a positive number, or None, not True"),
        (Y, {"weights": [1.0] * 11}, r"12 values need as many weights, not the shape \(11,\)"),
        (Y, {"weights": [1.0] * 11 + [-2.0]}, "1 of 12 values are not, the first is -2.0 at index"),
        (Y, {"weights": [0.0] * 12}, "of 12 weights 0 are positive"),
    ],
)
def test_what_cannot_be_is_refused_with_its_value(y, options, message):
    with pytest.raises(ValueError, match=message):
        Dataset.from_samples(y, **options)


@pytest.mark.parametrize(
    ("support", "bounds"),
    [
        ("[-2, 100]", (-2, 100)),
        ("(-1.5, math.inf)", (-1.5, math.inf)),
        ("-2,inf", (-2, math.inf)),
        ("[-.inf, 11]", (-math.inf, 11)),
        ("(None, 11)", (-math.inf, 11)),
        ((None, 11), (-math.inf, 11)),
        ([-2, None], (-2, math.inf)),
    ],
)
def test_bounds_may_come_as_a_text(support, bounds):
    assert Dataset.from_samples(Y, support=support).bounds == bounds


def test_six_are_enough_and_said_to_be_few():
    data = Dataset.from_samples(np.arange(6.0))
    assert len(data.test) == 2
    assert "2 test points are few" in data.summary()


@pytest.mark.parametrize(
    "y",
    [
        np.array([1, 2, 4], dtype=">f4"),
        np.array([4.0, 2.0, 1.0])[::-1],
        torch.tensor([1.0, 2.0, 4.0], requires_grad=True),
    ],
)
def test_arrays_are_taken_as_they_lie_in_memory(y):
    assert check_sample(y).tolist() == [1, 2, 4]


def test_a_file_of_rounded_bounded_weighted_data(tmp_path):
    path = tmp_path / "data.csv"
    rows = [f"{k % 7},{1 + k % 2}" for k in range(70)]
    path.write_text("height,w\n" + "\n".join(rows), encoding="utf-8")
    data = load_dataset(f"{path}:height", support=(0, math.inf), rounding=1, weights="w")
    assert data.bounds == (0.0, math.inf)
    assert data.train.min() >= 0, "spread over the intervals, inside the bounds"
    assert set(data.as_read.tolist()) <= set(range(7))
    assert (data.test - data.as_read).abs().max() <= 0.5
    assert len(data.test.unique()) > 7, "spread too"
    total = sum(w.sum().item() for w in data.weights.values())
    assert total == pytest.approx(105**2 / 175), "Kish's effective number"


def test_weights_of_zero_leave_out():
    y, w = np.arange(50.0), np.ones(50)
    w[10:20] = 0
    data = Dataset.from_samples(y, weights=w)
    assert sorted(data.points.tolist()) == [*range(10), *range(20, 50)]
    assert data.n_effective == pytest.approx(len(data.train))


def test_equal_weights_change_nothing():
    y = np.random.default_rng(0).normal(size=400)
    one, other = Dataset.from_samples(y), Dataset.from_samples(y, weights=np.full(400, 3.0))
    assert units_of(one).loc == pytest.approx(units_of(other).loc, abs=1e-12)
    assert units_of(one).scale == pytest.approx(units_of(other).scale, rel=1e-12)
    (nodes, counts), (same, weighted) = one.compress(16), other.compress(16)
    torch.testing.assert_close(nodes, same)
    torch.testing.assert_close(counts, weighted)
    assert {other: 1}[other] == 1, "a data set can be the key of a cache"


def test_no_values_nearer_than_the_rounding():
    check_rounding(0.1, torch.tensor([37.1, 37.2, 38.0]))
    check_rounding(np.int64(1), torch.tensor([37.0, 38.0]))
    with pytest.raises(ValueError, match="cannot be"):
        check_rounding(0.1, torch.tensor([37.1, 37.15, 38.0]))
    far = 1e6 + torch.tensor([37.1, 37.2, 38.0], dtype=torch.float64)
    check_rounding(0.1, far)
    check_rounding(0.01, 1e3 + torch.tensor([0.01, 0.02, 0.05]))  # equal steps only in double
    with pytest.raises(ValueError, match="cannot be"):
        check_rounding(0.11, far)
