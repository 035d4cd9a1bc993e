"""Standings and losses from rows that are made up; measuring from one small sample."""

from math import inf

import numpy as np
import pytest
import torch

from benchmarks import estimators, leaderboard
from benchmarks.estimators import CONTENDERS, held_out, measure
from dlutils import plotting
from dlutils.data.datasets import make_dataset

OTHERS = [name for name in CONTENDERS if name not in ("ODE or SDE", "EM, grown")]
OURS, EM = map(leaderboard.NAMES.index, ("ODE or SDE", "EM, grown"))
DENSITIES = ["marron_wand_05", "benchden_06"]


@pytest.fixture
def rows():
    """Ours is behind by 0.001 ± 0.0005 on the first, and ahead on the second, where one fails."""

    def row(density, seed, ours, em):
        kl = dict.fromkeys(OTHERS, 1.0) | {"ODE or SDE": ours, "EM, grown": em}
        seconds = dict.fromkeys(kl, 0.5)
        row = {"density": density, "n": 1000, "seed": seed, "coordinate": "Identity"}
        further = dict.fromkeys(leaderboard.FURTHER.values(), dict.fromkeys(kl, 0.1) | {"NSF": 0.2})
        return row | {"kl": kl, "seconds": seconds} | further

    return [
        row("marron_wand_05", 10, 0.0030, 0.0025),
        row("marron_wand_05", 11, 0.0060, 0.0045),
        row("benchden_06", 10, 0.002, None),
        row("benchden_06", 11, 0.004, 0.001),
    ]


def test_distances_are_in_thousandths_and_infinite_where_there_is_none(rows):
    kl = leaderboard.distances(rows, DENSITIES, 1000)
    np.testing.assert_allclose(kl[OURS], [[3, 6], [2, 4]])
    np.testing.assert_allclose(kl[EM], [[2.5, 4.5], [inf, 1]])
    assert np.isnan(leaderboard.distances(rows, DENSITIES, 100)).all()


def test_near_is_within_a_standard_error_of_the_paired_difference(rows):
    best, near = leaderboard.closest(leaderboard.distances(rows, DENSITIES, 1000))
    assert best.tolist() == [EM, OURS]
    assert near[OURS].tolist() == [False, True], "1 behind, give or take 0.5"
    assert near[EM].tolist() == [True, False]
    rows[0]["kl"]["ODE or SDE"] = 0.0024
    _, near = leaderboard.closest(leaderboard.distances(rows, DENSITIES, 1000))
    assert near[OURS, 0], "0.7 behind, give or take 0.8"


def test_standings_count_and_rank(rows):
    standings = leaderboard.standings(rows, DENSITIES, [1000])
    lines = {line["contender"]: line for line in standings}
    assert next(iter(lines)) == "ODE or SDE", "by rank"
    keys = ("rank, n = 1,000", "closest, n = 1,000", "or near, n = 1,000", "seconds")
    assert [lines["ODE or SDE"][key] for key in keys] == [1.5, 1, 1, 0.5]
    assert [lines["EM, grown"][key] for key in keys] == [(1 + len(CONTENDERS)) / 2, 1, 1, 0.5]
    ranks = leaderboard.mean_ranks({"Standings, all": standings}, ["all"], [1000])
    assert [line["contender"] for line in ranks] == list(CONTENDERS)
    found = {line["contender"]: line["all, n = 1,000"] for line in ranks}
    assert found == {name: line["rank, n = 1,000"] for name, line in lines.items()}


def test_other_distances_have_ranks_of_their_own(rows):
    for what in leaderboard.FURTHER.values():
        lines = leaderboard.ranks_by(rows, what, {"all": DENSITIES}, [1000])
        ranks = {line["contender"]: line["all, n = 1,000"] for line in lines}
        assert ranks["NSF"] == len(CONTENDERS)
        assert ranks["EM, grown"] == len(CONTENDERS) / 2, "all others alike"


def test_raw_results_have_a_row_a_fit(rows):
    fits = leaderboard.fits(rows)
    assert len(fits) == len(rows) * len(CONTENDERS)
    (failed,) = (fit for fit in fits if fit["kl"] is None)
    assert (failed["density"], failed["seed"], failed["contender"]) == (
        "benchden_06", 10, "EM, grown",
    )  # fmt: skip
    assert failed["ise"] == 0.1


def test_losses_name_who_is_closer_and_by_how_much(rows):
    (loss,) = leaderboard.losses(rows, {"all": DENSITIES}, [1000])
    assert loss == {
        "suite": "all",
        "n": 1000,
        "density": "5 outlier",
        "closest": "EM, grown",
        "its KL": "3.50 ± 1.00",
        "ODE or SDE": "4.50 ± 1.50",
        "behind": "1.00 ± 0.50",
    }


def test_a_table_has_the_closest_in_bold_and_the_mean(rows):
    first, second, mean = leaderboard.table(leaderboard.distances(rows, DENSITIES, 1000), DENSITIES)
    assert (first["density"], first["floor"]) == ("5 outlier", "0.25")
    assert (first["EM, grown"], first["ODE or SDE"]) == ("**3.50 ± 1.00**", "4.50 ± 1.50")
    assert (second["EM, grown"], second["floor"]) == ("–", "–")
    assert (mean["ODE or SDE"], mean["EM, grown"], mean["NSF"]) == ("3.75", "–", "1e+03")


def test_the_figure_is_drawn(rows, monkeypatch):
    saved = {}
    monkeypatch.setattr(plotting, "save_figure", lambda fig, name: saved.update({name: fig}))
    monkeypatch.setattr(leaderboard, "SUITES", {"all": DENSITIES, "one": DENSITIES[:1]})
    leaderboard.draw(rows, [("all", 1000), ("one", 1000)])
    assert [len(ax.lines) for ax in saved["leaderboard"].axes] == 2 * [len(CONTENDERS)]


def test_measuring_compares_all_on_one_sample_and_says_who_has_no_density(monkeypatch):
    def folds(dataset, seed):
        raise ValueError("the step folds the line")

    few = {name: CONTENDERS[name] for name in ("EM, grown", "KDE, Scott", "penalised")}
    ours = dict.fromkeys(("ODE, likelihood", "SDE, closed form", "ODE or SDE"), few["EM, grown"])
    few = ours | few
    monkeypatch.setattr(estimators, "CONTENDERS", few | {"folds": (folds, "", "")})
    found = measure({"density": "benchden_06", "n": 300, "seed": 3})
    assert found["coordinate"] == "Arsinh"
    assert all(0 < found["kl"][name] < 0.1 for name in few)
    assert found["kl"]["folds"] is None
    assert found["errors"] == {"folds": "ValueError: the step folds the line"}
    assert list(found["seconds"]) == [*few, "folds"]
    both = [found["seconds"][name] for name in list(ours)[:2]]
    assert found["seconds"]["ODE or SDE"] > sum(both), "it needs both"


def test_validation_points_are_held_out_of_the_sample():
    data = make_dataset("gaussian", 100, 2, 2)
    parts = held_out(data)
    assert (len(parts.train), len(parts.val)) == (90, 10)
    assert torch.equal(torch.cat([parts.val, parts.train]), data.train)
