"""What the benchmarks of `fit_density` make of their rows; and one small sample of each."""

import numpy as np
import pytest

from benchmarks import censored, density, hellinger
from benchmarks.estimators import measure
from dlutils.data.datasets import make_dataset

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
    assert line["within 1 s"] == "100%"
    first, _ = density.coverage(rows, DENSITIES, [1000])
    assert first["coverage, n = 1,000"] == "0.950 ± 0.050"
    assert first["KL, n = 1,000"] == "2.00 ± 0.00"


def test_ours_stands_beside_what_was_published(rows):
    rows = [row | {"n": 5000} for row in rows]
    rows += [row | {"density": "marron_wand_01", "ise": 0.004 - row["ise"]} for row in rows[:2]]
    first, line, mean = density.beside_published(rows, 5000)
    assert first["fit_density"] == "2.00 ± 1.00"
    assert (line["density"], line["super"]) == ("10 claw", 1.5)
    assert line["fit_density"] == "2.00 ± 1.00"
    assert mean["density"] == "mean; ours is below all on 0 of 2"
    assert mean["fit_density"] == "2.00 ± 0.00", "on each sample"
    assert density.beside_published(rows, 500) == []


def test_ranks_count_who_is_below_whom(rows):
    rows = [row | {"n": 5000} for row in rows]
    lines = {line["estimator"]: line for line in density.ranks(rows, [500, 5000])}
    assert lines["fit_density"]["rank, n = 5,000"] == 3, "behind two that have 1.5"
    assert lines["super"]["rank, n = 5,000"] == 1.5
    assert lines["super"]["ours below : above, n = 5,000"] == "0 : 1 (0 : 0)"
    assert lines["Silverman"]["ours below : above, n = 5,000"] == "1 : 0 (1 : 0)"
    assert lines["LSCV"]["ours below : above, n = 5,000"] == "1 : 0 (0 : 0)"


def test_steps_are_compared_with_a_histogram_of_the_same_samples(rows):
    rows = [row | {"squared_hellinger_histogram": 0.00025} for row in rows]
    (line,) = density.in_steps(rows)
    assert (line["density"], line["ratio of the means"]) == ("1 uniform", 2)


def test_spikes_and_how_many_points_they_have():
    y = np.array([-1.5, -1.49, -1.4, 0.4, 0.75, 1.1])
    found = density.parts(y)
    assert found["narrow spikes"].tolist() == [True, True, False, False, False, False]
    assert found["wide spikes"].tolist() == [False, False, False, True, False, True]
    assert found["elsewhere"].sum() == 2
    dataset = make_dataset("marron_wand_13", 300_000, 2, 2, seed=0)
    row = {"density": "marron_wand_13", "n": 300_000, "narrow spikes": 0.5, "wide spikes": 0.5}
    narrow, wide, _ = density.at_spikes([row | {"elsewhere": 1.0}], [300_000])
    counts = {name: part.sum() for name, part in density.parts(dataset.train.numpy()).items()}
    for line in (narrow, wide):
        own, bells = (
            int(line[f"{of}, n = 300,000"].split()[0]) for of in ("own points", "the bells'")
        )
        assert counts[line["places"]] == pytest.approx(
            3 * (own + bells), abs=4 * (3 * bells) ** 0.5
        )


def test_the_nearer_of_two_is_no_farther_than_the_chosen():
    found = density.measure_choice({"density": "marron_wand_02", "n": 200, "seed": 3})
    nearer = min(found["flow"], found["SDE"])
    assert 0 < found["nearer"] == nearer <= found["chosen"] < 50
    row = {"density": "marron_wand_02", "n": 200} | found
    first, mean = density.choices([row, row | {"flow": found["flow"] + 2}], 200)
    assert first["flow"] == mean["flow"] == pytest.approx(found["flow"] + 1)


def test_one_sample_is_measured():
    found = density.measure({"density": "benchden_01", "n": 300, "seed": 3})
    assert found["model"] == "SDE"
    assert 0.8 < found["coverage"] <= 1
    assert 0 < found["squared_hellinger"] < 0.01


@pytest.mark.parametrize("name", censored.NAMES)
def test_so_many_values_are_censored_as_is_asked_for(name):
    _, hidden = censored.censored_sample(name, 0.2, 4000, 1)
    assert hidden.mean() == pytest.approx(0.2, abs=0.03), "4.7 standard errors"


def censored_row(**measured):
    config = {"density": "exponential", "kind": "censored", "share": 0.5, "n": 300, "seed": 3}
    return config | measured


def test_errors_of_a_censored_sample():
    config = censored_row()
    row = config | censored.measure(config)
    assert np.abs(row["errors"]).max() < 0.15
    assert 0.5 < row["coverage"] <= 1
    (line,) = censored.table_censored([row])
    assert (line["density"], line["samples"]) == ("exponential", 1)
    fit = censored.fit_of(row)
    assert fit["errors at 0.5"] == row["errors"][1]
    assert all(np.isscalar(value) for value in fit.values())


def test_errors_of_a_truncated_sample():
    config = censored_row(kind="above", share=0.2)
    row = config | censored.measure(config)
    assert row["hidden"] == pytest.approx(0.2, abs=0.1), "4.3 standard errors"
    assert np.abs(row["errors"]).max() < 0.15
    (line,) = censored.table_truncated([row])
    assert (line["density"], line["lost"]) == ("exponential", "20% above")
    assert censored.table_censored([row]) == []


def test_bias_and_coverage_are_means_with_their_errors():
    def row(seed, error, coverage):
        of_log = {"errors of log q": [0.1, 0.1, error], "deviation": [0.06, 0.04, 1.0]}
        return censored_row(
            seed=seed, hidden=0.5, errors=[0, 0, error], coverage=coverage, seconds=1.0,
            **{"errors of Kaplan-Meier": [0, 0, 0]}, **of_log,
        )  # fmt: skip

    rows = [row(1, 0.01, 0.8), row(2, 0.03, 1.0)]
    (line,) = censored.table_censored(rows)
    assert line["bias of F at 0.75"] == "+0.020 ± 0.010"
    assert line["error"] == f"{(0.001 / 6) ** 0.5:.4f}"
    assert (line["coverage"], line["coverage at the quartiles"]) == ("0.900 ± 0.100", "0.67")
    places = censored.table_places(rows)
    assert [place["coverage"] for place in places] == ["1.00", "0.00", "1.00"]
    assert places[2]["spread"] == "0.014"


class Exponential:
    """A density with a band of a tenth, and the CDF that belongs to it."""

    def __init__(self, factor, scale=1.0):
        self.factor, self.scale = factor, scale

    def band(self, y):
        p = self.factor * np.exp(-y)
        return 0.9 * p, 1.1 * p

    def cdf(self, y):
        return np.minimum(1, self.scale * (1 - np.exp(-y)))


def test_coverage_is_of_all_values_or_given_the_window():
    right = Exponential(1.0)
    assert censored.covered(right, "exponential", 0.0, 0.5) == 1
    assert censored.covered(right, "exponential", 0.0, 0.5, of_all=False) == 1
    naive = Exponential(2.0, 2.0)  # all of it in the window that has one half
    assert censored.covered(naive, "exponential", 0.0, 0.5) == 0
    assert censored.covered(naive, "exponential", 0.0, 0.5, of_all=False) == 1


def hellinger_row(seed, ours, its):
    found = dict.fromkeys(hellinger.NAMES, 0.001) | {"fit_density": ours, "histogram": its}
    row = {"density": "benchden_01", "n": 1000, "seed": seed, "coordinate": "Identity"}
    return row | {what: dict(found) for what in hellinger.DISTANCES} | {"seconds": found}


def test_ours_stands_beside_the_histogram_on_the_same_samples():
    rows = [hellinger_row(300, 0.002, 0.001), hellinger_row(301, 0.004, 0.003)]
    (line,) = hellinger.beside(rows, ["benchden_01"])
    assert (line["ratio"], line["difference"]) == (1.5, "1.00 ± 0.00")
    rows[0]["squared_hellinger"]["DEFT"] = None
    (line,) = hellinger.table(rows, ["benchden_01"])
    assert (line["DEFT"], line["histogram"]) == ("–", "2.00 ± 1.00")


def test_only_those_contenders_are_measured_that_are_asked_for():
    config = {"density": "benchden_01", "n": 300, "seed": 3, "contenders": ["histogram"]}
    found = measure(config)
    assert list(found["squared_hellinger"]) == list(found["seconds"]) == ["histogram"]
    assert 0 < found["squared_hellinger"]["histogram"] < 0.01
