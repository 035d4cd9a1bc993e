"""What the benchmarks compute themselves, without the packages they compare with."""

import argparse
from dataclasses import replace

import pytest
import torch

from benchmarks import tables
from benchmarks.common import command
from benchmarks.estimators import ESTIMATORS, information_criterion, measure, notebook
from benchmarks.tables import fill
from dlutils.comparison import compare
from dlutils.datasets import make_dataset


@pytest.fixture
def single_precision():
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(("prior_precision", "parameters"), [(1e-3, 2), (1e9, 0)])
def test_effective_parameters_of_a_gaussian(single_precision, prior_precision, parameters):
    """Mean and standard deviation; none that the prior holds fast."""
    dataset = make_dataset("gaussian")
    model = notebook("ODE.ipynb").train(
        dataset, "linear", "rk4", 10, logdet="map", n_iterations=150, progress=False
    )
    mean = model.log_likelihood(dataset.train).double().mean().item()
    criterion = information_criterion(model, dataset, 32, prior_precision)
    assert 10_000 * (mean - criterion) == pytest.approx(parameters, abs=0.05)


def test_measure_and_a_kernel_estimate(single_precision):
    config = {"density": "marron_wand_01", "n": 500, "seed": 0, "estimator": "KDE, Scott"}
    row = measure(config)
    assert 0 < row["kl"] < 0.02
    assert row["mass"] == pytest.approx(1, abs=1e-3)
    dataset = make_dataset("marron_wand_01", n_train=500)
    estimate = ESTIMATORS["KDE, Scott"](dataset, 0)
    assert compare(dataset, estimate, 8001).normalized_kl == row["kl"]
    assert list(ESTIMATORS)[:2] == ["ODE", "SDE"]


def test_the_grown_mixture_is_a_contender_of_its_own():
    dataset = make_dataset("marron_wand_07", n_train=1000)
    assert compare(dataset, ESTIMATORS["EM, grown"](dataset, 0)).normalized_kl < 0.01


def test_scikit_learns_mixture_has_no_more_components_than_there_are_values():
    pytest.importorskip("sklearn")  # of requirements-bench.txt
    dataset = replace(make_dataset("gaussian"), train=torch.tensor([0.0, 0.0, 1.0, 1.0, 3.0]))
    log_density = ESTIMATORS["EM, scikit-learn"](dataset, 0)
    assert log_density(torch.tensor([0.5])).isfinite().all()


def make(options: argparse.Namespace):
    rows = [{"name": "a", "KL": 0.001234, "ms": 3}, {"name": "b", "KL": 12345.6, "ms": 4}]
    return ["A note."], {"First": rows}


def test_report_and_the_page_made_of_it(tmp_path, capsys):
    assert command("demo", "Doc.", "less", ["torch"], make, ["--output", str(tmp_path)]) == 0
    report = (tmp_path / "demo.md").read_text(encoding="utf-8")
    assert report.strip() == capsys.readouterr().out.strip()
    assert "| a    | 0.00123 |   3 |" in report
    before = "Text.\n<!-- table: demo | First | name; KL -->\nold\n<!-- end -->\nMore."
    after = fill(before, tmp_path)
    assert "old" not in after
    assert "| b    |  12,346 |\n\n`python -m benchmarks.demo` on " in after
    assert after.startswith("Text.\n<!-- table")
    assert after.endswith("<!-- end -->\nMore.")
    assert fill(after, tmp_path) == after
    for wrong, message in (
        ("none | First | KL", "run python -m benchmarks.none first"),
        ("demo | Second | KL", "no table 'Second'"),
        ("demo | First | kl", "no table 'First' with the columns"),
    ):
        with pytest.raises(ValueError, match=message):
            fill(f"<!-- table: {wrong} -->\n<!-- end -->", tmp_path)


def test_all_pages_are_renewed_or_none(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command("demo", "Doc.", "less", [], make, ["--output", "build/benchmarks"]) == 0
    page = "Page.\n<!-- table: {} | First | name; KL -->\n<!-- end -->\n"
    (tmp_path / "docs").mkdir()
    paths = [tmp_path / "README.md", tmp_path / "docs/first.md", tmp_path / "docs/second.md"]
    for path, text in zip(
        paths, ["No marker.", page.format("demo"), page.format("none")], strict=True
    ):
        path.write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit):
        tables.main([])
    assert "run python -m benchmarks.none first" in capsys.readouterr().err
    assert paths[1].read_text(encoding="utf-8") == page.format("demo")
    paths[2].unlink()
    assert tables.main([]) == 0
    assert "12,346" in paths[1].read_text(encoding="utf-8")
    assert paths[0].read_text(encoding="utf-8") == "No marker."
    with pytest.raises(SystemExit):
        tables.main(["no_page.md"])
    assert "no_page.md" in capsys.readouterr().err


def test_a_missing_package_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        command("demo", "Doc.", "less", ["no-such-package"], make, [])
    assert "the package 'no-such-package' is missing: run `make bench`" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command("demo", "Doc.", "less", [], make, ["--threads", "0"])
    assert "--threads must be at least 1, not 0" in capsys.readouterr().err
