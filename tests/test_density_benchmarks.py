"""What the benchmarks of `fit_density` make of their rows; and one small sample of each."""

import numpy as np
import pytest

from benchmarks import censored, density

DENSITIES = ["marron_wand_10", "benchden_01"]


@pytest.fixture
def rows():
    def row(name, seed, coverage, ise):
        return {"density": name, "n": 1000, "seed": seed, "coverage": coverage, "kl": 0.002,
                "ise": ise, "squared_hellinger": 0.0005, "seconds": 0.5}  # fmt: skip

    return [
        row("marron_wand_10", 10, 0.9, 0.001),
        row("marron_wand_10", 11, 1.0, 0.003),
        row("benchden_01", 10, 0.7, 0.2),
        row("benchden_01", 11, 0.8, 0.2),
    ]


def test_coverage_in_short_names_the_least_and_what_is_below(rows):
    (line,) = density.coverage_in_short(rows, [1000])
    assert (line["densities"], line["samples each"]) == (2, 2)
    assert (line["mean coverage"], line["least"]) == ("0.850", "0.750, 1 uniform")
    assert line["below 0.8"] == "1 uniform"
    first, _ = density.coverage(rows, DENSITIES, [1000])
    assert first["coverage, n = 1,000"] == "0.950 ± 0.050"
    assert first["KL, n = 1,000"] == "2.00 ± 0.00"


def test_ours_stands_beside_what_was_published(rows):
    rows = [row | {"n": 5000} for row in rows]
    line, mean = density.beside_published(rows, 5000)
    assert (line["density"], line["super"]) == ("10 claw", 1.5)
    assert line["fit_density"] == "2.00 ± 1.00"
    assert mean["density"] == "mean; ours is below all on 0 of 1"
    assert density.beside_published(rows, 500) == []


def test_one_sample_is_measured():
    found = density.measure({"density": "benchden_01", "n": 300, "seed": 3})
    assert found["model"] == "SDE"
    assert 0.8 < found["coverage"] <= 1
    assert 0 < found["squared_hellinger"] < 0.01


@pytest.mark.parametrize("name", censored.NAMES)
def test_so_many_values_are_censored_as_is_asked_for(name):
    _, hidden = censored.censored_sample(name, 0.2, 4000, 1)
    assert hidden.mean() == pytest.approx(0.2, abs=0.03), "4.7 standard errors"


def test_errors_of_a_censored_sample():
    config = {"density": "exponential", "censored": 0.5, "n": 300, "seed": 3}
    row = config | censored.measure(config)
    assert np.abs(row["errors"]).max() < 0.15
    (line,) = censored.table([row])
    assert (line["density"], line["samples"]) == ("exponential", 1)
