from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch

from dlutils import diffusion, flows
from dlutils.arrays import check_precision, dtype_of, points
from dlutils.data.datasets import Dataset, make_dataset
from dlutils.data.own_data import check_sample

VALUES = [1.5, -2.0, 0.25, 4.0]
FRAME = pd.DataFrame({"x": [9.0, *VALUES], "keep": [False, True, True, True, True]})
HOLDERS = {
    "tuple": tuple(VALUES),
    "filtered series": FRAME[FRAME["keep"]]["x"],
    "series of nullable floats": pd.Series(VALUES, dtype="Float64"),
    "long double": np.array(VALUES, dtype=np.longdouble),
    "decimals": [Decimal(str(value)) for value in VALUES],
    "nothing masked": np.ma.masked_array(VALUES, mask=False),
    "read-only": np.broadcast_to(VALUES, (4,)),
    "bfloat16": torch.tensor(VALUES, dtype=torch.bfloat16),
}


@pytest.mark.parametrize("y", HOLDERS.values(), ids=HOLDERS)
def test_numbers_are_taken_from_whatever_holds_them(y):
    sample = check_sample(y)
    assert sample.tolist() == VALUES
    assert (sample.dtype, sample.requires_grad) == (torch.float64, False)


@pytest.mark.parametrize("y", HOLDERS.values(), ids=HOLDERS)
def test_points_are_taken_from_whatever_holds_them(y):
    assert points(y).tolist() == VALUES


def test_models_take_points_out_of_a_filtered_series():
    data, y = make_dataset("gaussian", 100, 50, 50), FRAME[FRAME["keep"]]["x"]
    one, other = flows.flow_matching(data), diffusion.least_squares(data)
    for log_p in (one.log_likelihood, other.log_likelihood, other.elbo, data.log_prob):
        torch.testing.assert_close(log_p(y), log_p(torch.tensor(VALUES, dtype=torch.float64)))


@pytest.mark.parametrize("dtype", ["uint64", "Int64", "int64[pyarrow]"])
def test_whole_numbers(dtype):
    if "pyarrow" in dtype:
        pytest.importorskip("pyarrow")
    assert check_sample(pd.Series([3, 1, 2], dtype=dtype)).tolist() == [3, 1, 2]


def shifted(constant, scale, n=1000):
    return constant + scale * np.random.default_rng(0).standard_normal(n)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (pd.Series([1, None, 2, None], dtype="Int64"), "2 of 4 values are not, .* nan at index 1"),
        (pd.Series([1.5, pd.NA], dtype="Float64"), "1 of 2 values are not, the first is nan at"),
        ([1.0, 2.0, None], "data must not be missing: 1 of 3 values are, the first at index 2"),
        (np.ma.masked_less([1.0, -999, 3], 0), "missing: 1 of 3 values are, the first at index 1"),
        (torch.tensor([1, 2j]), "data must be numbers: real ones, not torch.complex"),
        (torch.tensor([True, False]), "data must be numbers: real ones, not torch.bool"),
        (np.array([1.0, True], dtype=object), "data must be numbers: True at index 1 is none"),
        (np.array([1.0, "2"], dtype=object), "data must be numbers: '2' at index 1 is none"),
        (["1", "2"], "data must be numbers: real ones, not <U1"),
        (pd.date_range("2020", periods=3), "data must be numbers: real ones, not datetime64"),
        ([[1.0], [2.0, 3.0]], "data must be numbers: "),
        (FRAME, "data must be numbers: |one-dimensional"),
        ([0.5, 10**400], "data must be numbers up to 1.8e.308: the one at index 1 is beyond"),
        ([Fraction(10**400), 1], "the one at index 0 is beyond"),
        (np.array([1e-310, 3e-310, 2e-310]), "data must span at least 1e-100, not 2e-310"),
        (np.array([np.longdouble("1e400"), 1]), "1 of 2 values are not, the first is inf at index"),
        (shifted(1e6, 1e-8), "double precision, .* such as 1000000$"),
        (np.append(shifted(1e6, 1e-8), 0), "double precision, .* most lie .* such as 1000000$"),
        (1_700_000_000_000_000_000 + np.arange(1000), r"double .* such as 1\.7e\+18$"),
        ([0.1 + 0.2, 0.3, 0.3], "double precision, .* such as 0.3"),
        (1e-101 * np.arange(9), "data must span at least 1e-100, not 8e-101: multiply them"),
    ],
)
def test_what_is_no_sample_of_numbers_is_named(y, message):
    with pytest.raises(ValueError, match=message):
        check_sample(y)


COARSE = {
    "one outlier": (np.append(shifted(1e6, 0.01), 0), 1e6),
    "few values": (np.append(shifted(1e6, 0.01, 9), 0), 1e6),
    "outliers on both sides": (np.concatenate([shifted(1e6, 0.01), [0, 1e9, -1e9]]), 1e6),
    "times and a zero": (
        np.append(1.7e9 + np.random.default_rng(0).uniform(0, 86_400, 1000), 0),
        1.7e9,
    ),
    "mostly one value": (np.concatenate([np.zeros(3000), shifted(1e6, 0.01)]), 1e6),
    "two clusters": (np.concatenate([shifted(0, 1), shifted(1e6, 0.01)]), 1e6),
    "ties": (np.append(np.repeat(1e6 + 0.1 * np.arange(5), 100), 0), 1e6),
}


@pytest.mark.parametrize(("y", "constant"), COARSE.values(), ids=COARSE)
def test_values_that_single_precision_merges_are_refused(y, constant):
    data = Dataset.from_samples(y)
    assert sorted(data.points.tolist()) == sorted(y), "double precision keeps them apart"
    with pytest.raises(ValueError, match=r"single .* subtract a constant") as refusal:
        data.to(torch.float32)
    named = float(str(refusal.value).rsplit(maxsplit=1)[1])
    assert named == pytest.approx(constant, rel=1e-4)
    check_precision(check_sample(y[np.abs(y / constant - 1) < 0.1] - named))


def test_what_single_precision_cannot_hold_is_named():
    data = Dataset.from_samples(np.append(np.arange(100.0), -1e90))
    with pytest.raises(ValueError, match=r"single precision cannot hold -1e\+90: "):
        data.to(torch.float32)


RNG = np.random.default_rng(1)
FINE = {
    "far from zero": shifted(10_000, 1, 10_000),
    "heavy tails": RNG.standard_cauchy(10_000),
    "many orders of magnitude": np.exp(10 * RNG.standard_normal(10_000)),
    "mostly zeros": np.append(np.zeros(900), RNG.gamma(2, size=100)),
    "counts": RNG.poisson(3, 1000),
    "equal up to rounding": np.repeat([0.1 + 0.2, 0.3, 0.3, 0.3, 0.7], 100),
    "two clusters": np.concatenate([shifted(0, 1), shifted(1e6, 1e3)]),
    "few values": np.array([0, 1, 2, 3, 4, 1e6]),
    "times of a year": 1.7e9 + RNG.uniform(0, 3e7, 1000),
}


@pytest.mark.parametrize("y", FINE.values(), ids=FINE)
def test_values_that_it_keeps_apart_are_taken(y):
    assert len(check_sample(y)) == len(y)
    check_precision(check_sample(y))


def test_a_model_has_the_type_of_its_weights_or_buffers_or_double_precision():
    net = torch.nn.Linear(1, 1)
    assert dtype_of(net) == torch.float32
    assert dtype_of(net.double()) == torch.float64
    counted = torch.nn.Module()
    counted.register_buffer("order", torch.arange(3))
    assert dtype_of(counted) == torch.float64
    counted.register_buffer("places", torch.zeros(3, dtype=torch.float32))
    assert dtype_of(counted) == torch.float32
    assert dtype_of(lambda x, t: x) == torch.float64
