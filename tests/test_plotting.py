import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image
from torch.distributions import Normal

from dlutils import plotting
from dlutils.data.datasets import Dataset, make_dataset
from dlutils.evaluation import compare
from dlutils.training import History


@pytest.fixture(autouse=True)
def style():
    with plt.rc_context():
        plotting.use_style()
        yield
    plt.close("all")


@pytest.fixture
def dataset():
    return make_dataset("gaussian", n_train=200, n_val=50, n_test=50)


def test_density_draws_data_truth_and_model(dataset):
    fit = compare(dataset, Normal(1.0, 0.5).log_prob)
    ax = plotting.density(dataset, fit)
    truth, model = ax.get_lines()
    np.testing.assert_allclose(truth.get_ydata(), model.get_ydata(), rtol=1e-4)
    assert truth.get_color() == plotting.COLORS["truth"]
    assert model.get_color() == plotting.COLORS["model"]


def test_a_sample_without_truth_is_drawn_without_it():
    sample = Dataset.from_samples(torch.linspace(-2, 2, 50))
    fit = compare(sample, Normal(0.0, 1.0).log_prob)
    assert math.isnan(fit.normalized_kl)
    assert len(plotting.density(sample, fit).get_lines()) == 1
    ax = plotting.training_curve(History([-2.0, -1.0], [0], [-1.5]), sample)
    assert len(ax.get_lines()) == 2


def test_functions_draw_where_they_are_told_and_never_show(dataset, monkeypatch):
    monkeypatch.setattr(plt, "show", lambda: pytest.fail("plt.show was called"))
    _, axes = plt.subplots(1, 3)
    fit = compare(dataset, Normal(1.0, 0.5).log_prob)
    assert plotting.density(dataset, fit, ax=axes[0]) is axes[0]
    assert plotting.training_curve(History([-2.0], [0], [-1.5]), dataset, ax=axes[1]) is axes[1]
    x = np.linspace(-2, 2, 9)[None].repeat(3, 0)
    paths, quantiles = np.zeros((3, 2)), np.ones((3, 1))
    drawn = plotting.flow([0, 0.5, 1], x, np.exp(-(x**2)), paths, quantiles, [0.8], ax=axes[2])
    assert drawn is axes[2]


@pytest.mark.parametrize("n", [1, 7])
def test_any_number_of_things_can_be_drawn(dataset, n):
    fits = {f"net_{k}": compare(dataset, Normal(1.0, 0.5 + 0.004 * k).log_prob) for k in range(n)}
    fits["far off"] = compare(dataset, Normal(3.0, 0.5).log_prob)
    top, bottom = plotting.densities(dataset, fits).axes
    assert len(top.get_lines()) == n + 2
    assert len(bottom.get_lines()) == n + 1, "what is far off is left out below, the zero is not"
    assert [line.get_label() for line in top.get_lines()][1:3] == ["net 0", "net 1"][:n] + [
        "far off"
    ] * (n == 1)
    assert bottom.get_ylim() == (-0.3, 0.3)
    fig = plotting.gallery([(dataset, fit) for fit in fits.values()])
    assert len(fig.axes) == n + 1
    values = {name: [1.0, 0.1 * k + 0.1] for k, name in enumerate(fits)}
    fig = plotting.panels([1, 10], {"error": values, "time / s": values}, slopes=True)
    assert [len(ax.get_lines()) for ax in fig.axes] == [n + 1, n + 1]
    assert fig.axes[0].get_lines()[0].get_label() == "net 0: slope -1.00"
    taken = {plotting.COLORS[thing] for thing in ("truth", "model", "bound", "validation")}
    for ax in fig.axes:
        assert not taken & {line.get_color() for line in ax.get_lines()}


def test_an_interrupted_run_without_history_can_be_drawn(dataset):
    plotting.training_curve(History(), dataset)


def test_a_saved_figure_has_the_same_bytes_every_time(tmp_path, dataset):
    contents = []
    for _ in range(2):
        fit = compare(dataset, Normal(1.0, 0.5).log_prob)
        ax = plotting.density(dataset, fit)
        plotting.save_figure(ax.figure, "figure", tmp_path)
        contents.append([(tmp_path / f"figure.{end}").read_bytes() for end in ("pdf", "png")])
        plt.close("all")
    assert contents[0] == contents[1]
    assert b"CreationDate" not in contents[0][0]


def test_an_animation_has_a_frame_for_each_time_and_the_same_bytes(tmp_path):
    x = np.linspace(-2, 2, 9)[None].repeat(3, 0) * np.array([[1], [2], [3]])
    contents = []
    for _ in range(2):
        plotting.animate_flow(tmp_path / "flow.gif", [0, 0.5, 1], x, np.exp(-(x**2)), x[:, ::4])
        contents.append((tmp_path / "flow.gif").read_bytes())
    assert contents[0] == contents[1]
    with Image.open(tmp_path / "flow.gif") as image:
        assert image.n_frames == 3  # the one that stays is shown for longer
        assert image.info["loop"] == 0
    assert not plt.get_fignums()


@pytest.mark.parametrize("n", [1, 4])
def test_maps_and_panels_follow_what_they_are_given(dataset, n):
    keys = [
        (f"path_{i}", f"noise_{j}", f"net_{k}") for i in range(n) for j in range(n) for k in "ab"
    ]
    values = {key: 0.01 * (k + 1) for k, key in enumerate(keys)}
    fig = plotting.heat_maps(values, values, ("{} path", "noise", "drift"), "gap / nats")
    maps = [ax for ax in fig.axes if ax.images]
    assert len(maps) == n
    assert all(len(ax.texts) == 2 * n for ax in maps)
    assert maps[0].get_title() == "path 0 path"
    x = np.linspace(0, 1, 5)
    series = {f"curve {k}": x + k for k in range(n)}
    fig = plotting.curve_panels([(x, series, {"yscale": "log"})] * n, {"curve 0": {"lw": 3}})
    assert [len(ax.get_lines()) for ax in fig.axes] == [n] * n
    fits = {"model": compare(dataset, Normal(1.0, 0.5).log_prob)}
    assert len(plotting.densities_side_by_side([(dataset, fits)] * n).axes) == 2 * n
    states, p = np.linspace(-4, 4, 41), np.ones((7, 41))
    paths = {f"kind {k}": np.zeros((7, 2)) for k in range(n)}
    fig = plotting.flows(np.linspace(0, 1, 7), states, p, paths, [0.5])
    assert sum(ax.get_ylim() == (-3, 3) for ax in fig.axes) == n


def test_the_second_panel_of_the_training_is_the_distance_from_the_truth(dataset):
    truth = float(dataset.log_prob(dataset.val).mean())
    history = History([-2.0, -1.0], [0, 1], [truth - 1, truth - 0.01])
    _, right = plotting.training(history, dataset, "ELBO").axes
    np.testing.assert_allclose(right.get_lines()[0].get_ydata(), [1, 0.01], rtol=1e-6)
    assert right.get_yscale() == "log"
    sample = Dataset.from_samples(torch.linspace(-2, 2, 50))
    assert len(plotting.training(history, sample, "ELBO").axes) == 1


def test_bounds_tighten_with_their_standard_errors():
    below = {"800 steps": [(2.0, 1 / 3**0.5), (0.5, 0.0)]}
    ax = plotting.tightening((1, 2), below, 1.5)
    (bars,) = ax.containers
    (segments,) = bars[2]
    heights = [end[1] - start[1] for start, end in segments.get_segments()]
    np.testing.assert_allclose(heights, [2 / 3**0.5, 0], atol=1e-6)
    assert list(bars[0].get_ydata()) == [2, 0.5]


def test_a_family_is_drawn_over_its_formula():
    ax = plotting.family((0.5, 1, 2), [1.0, 0.1, 1.0], [1.1, 0.1, 1.1], [1e-3, 1e-3, 2e-3])
    named = {line.get_label(): line.get_ydata() for line in ax.get_lines()}
    assert list(named) == ["by the formula", "gap of the bound", "KL of the density"]
    np.testing.assert_allclose(named["by the formula"], [1.1, 0.1, 1.1])


@pytest.mark.parametrize("n", [1, 2])
def test_flows_side_by_side_have_one_legend_and_the_same_limits(n):
    times, x = np.linspace(0, 1, 3), np.linspace(-6, 6, 401)[None].repeat(3, 0)
    p, paths = np.exp(-(x**2) / 2), np.zeros((3, 4))
    flows = {f"flow {k}": (times, x + k, p, paths) for k in range(n)}
    fig = plotting.flow_panels(flows, [0.5, 0.8], (-2, 4))
    panels = [ax for ax in fig.axes if ax.get_title()]
    assert [ax.get_title() for ax in panels] == list(flows)
    assert all(ax.get_ylim() == (-2, 4) for ax in panels)
    assert [bool(ax.get_ylabel()) for ax in panels] == [True] + [False] * (n - 1)
    assert all(ax.get_legend() is None for ax in panels)
    (legend,) = fig.legends
    assert [text.get_text() for text in legend.get_texts()] == ["samples", "CDF = 0.5, 0.8"]
    for k, ax in enumerate(panels):
        assert len(ax.collections) == 1, "the density"
        median, upper = ax.get_lines()[4:6]
        np.testing.assert_allclose(median.get_ydata(), k, atol=1e-3)
        np.testing.assert_allclose(upper.get_ydata(), k + 0.8416, atol=1e-3)


def test_a_name_with_dollars_is_drawn_as_it_is(tmp_path):
    """Matplotlib would take what is between them for mathematics, and fail at its underscore."""
    data = Dataset.from_samples(torch.linspace(-2, 2, 50), "a$_$b")
    assert data.title == r"A\$ \$b"
    ax = plotting.density(data, compare(data, Normal(0.0, 1.0).log_prob))
    ax.figure.savefig(tmp_path / "a.png")
