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

DATA = make_dataset("gaussian", n_train=200, n_val=50, n_test=50)
OWN = Dataset.from_samples(torch.linspace(-2, 2, 50), "a$_$b")
FIT, OWN_FIT = compare(DATA, Normal(1.0, 0.5).log_prob), compare(OWN, Normal(0.0, 1.0).log_prob)
HISTORY = History([-2.0, -1.0], [0, 1], [-1.5, -0.9])


@pytest.fixture(autouse=True)
def style(monkeypatch):
    monkeypatch.setattr(plt, "show", lambda: pytest.fail("plt.show was called"))
    with plt.rc_context():
        plotting.use_style()
        yield
    plt.close("all")


def test_density_draws_data_truth_and_model_where_it_is_told():
    ax = plt.subplots()[1]
    assert plotting.density(DATA, FIT, ax) is ax
    truth, model = ax.get_lines()
    np.testing.assert_allclose(truth.get_ydata(), model.get_ydata(), rtol=1e-4)
    assert truth.get_color() == plotting.COLORS["truth"]
    assert model.get_color() == plotting.COLORS["model"]


def test_a_sample_without_truth_is_drawn_without_it(tmp_path):
    """What stands between dollars in its name is no mathematics, which fails at an underscore."""
    assert math.isnan(OWN_FIT.normalized_kl)
    ax = plotting.density(OWN, OWN_FIT)
    assert len(ax.get_lines()) == 1
    assert ax.get_title() == r"A\$ \$b"
    ax.figure.savefig(tmp_path / "a.png")


def test_training_is_drawn_beside_its_distance_from_the_truth():
    left, right = plotting.training(HISTORY, DATA, "ELBO").axes
    assert len(left.get_lines()) == 5
    distance = float(DATA.log_prob(DATA.val).mean()) - np.array(HISTORY.val)
    np.testing.assert_allclose(right.get_lines()[0].get_ydata(), distance, rtol=1e-6)
    assert right.get_yscale() == "log"
    (alone,) = plotting.training(HISTORY, OWN).axes
    assert len(alone.get_lines()) == 2
    assert plotting.training_curve(History(), DATA, alone) is alone, "an interrupted run"


@pytest.mark.parametrize("n", [1, 7])
def test_any_number_of_things_can_be_drawn(n):
    fits = {f"net_{k}": compare(DATA, Normal(1.0, 0.5 + 0.004 * k).log_prob) for k in range(n)}
    fits["far off"] = compare(DATA, Normal(3.0, 0.5).log_prob)
    top, bottom = plotting.densities(DATA, fits).axes
    names = [f"net {k}" for k in range(n)] + ["far off"]
    assert [line.get_label() for line in top.get_lines()] == ["truth", *names]
    assert len(bottom.get_lines()) == n + 1, "what is far off is left out below, the zero is not"
    assert bottom.get_ylim() == (-0.3, 0.3)
    assert len(plotting.densities_side_by_side([(DATA, fits)] * n).axes) == 2 * n
    assert len(plotting.gallery([(DATA, FIT)] * n).axes) == n
    values = {name: [1.0, 0.1 * k + 0.1] for k, name in enumerate(fits)}
    fig = plotting.panels([1, 10], {"error": values, "time / s": values}, slopes=True)
    assert [len(ax.get_lines()) for ax in fig.axes] == [n + 1, n + 1]
    assert fig.axes[0].get_lines()[0].get_label() == "net 0: slope -1.00"
    taken = {plotting.COLORS[thing] for thing in ("truth", "model", "bound", "validation")}
    assert not taken & {line.get_color() for ax in fig.axes for line in ax.get_lines()}
    x = np.linspace(0, 1, 5)
    series = {f"curve {k}": x + k for k in range(n)}
    fig = plotting.curve_panels([(x, series, {"yscale": "log"})] * n, {"curve 0": {"lw": 3}})
    assert [len(ax.get_lines()) for ax in fig.axes] == [n] * n
    assert [ax.get_legend() is not None for ax in fig.axes] == [n > 1] + [False] * (n - 1)
    keys = [(f"map_{i}", f"row_{j}", column) for i in range(n) for j in range(n) for column in "ab"]
    values = {key: 0.01 * (k + 1) for k, key in enumerate(keys)}
    fig = plotting.heat_maps(values, values, ("{} path", "noise", "drift"), "gap / nats")
    maps = [ax for ax in fig.axes if ax.images]
    assert [len(ax.texts) for ax in maps] == [2 * n] * n
    assert maps[0].get_title() == "map 0 path"


def test_figures_and_animations_have_the_same_bytes_every_time(tmp_path):
    x = np.linspace(-2, 2, 9)[None].repeat(3, 0) * np.array([[1], [2], [3]])
    contents = []
    for _ in range(2):
        plotting.save_figure(plotting.density(DATA, FIT).figure, "figure", tmp_path)
        plt.close("all")
        plotting.animate_flow(tmp_path / "flow.gif", [0, 0.5, 1], x, np.exp(-(x**2)), x[:, ::4])
        assert not plt.get_fignums()
        contents.append({path.name: path.read_bytes() for path in tmp_path.iterdir()})
    assert contents[0] == contents[1]
    assert contents[0].keys() == {"figure.pdf", "figure.png", "flow.gif"}
    assert b"CreationDate" not in contents[0]["figure.pdf"]
    with Image.open(tmp_path / "flow.gif") as image:
        assert image.n_frames == 3, "one for each time; the one that stays is shown for longer"
        assert image.info["loop"] == 0


def test_bounds_tighten_with_their_standard_errors():
    ax = plotting.tightening((1, 2), {"800 steps": [(2.0, 1 / 3**0.5), (0.5, 0.0)]}, 1.5)
    (bars,) = ax.containers
    (segments,) = bars[2]
    heights = [end[1] - start[1] for start, end in segments.get_segments()]
    np.testing.assert_allclose(heights, [2 / 3**0.5, 0], atol=1e-6)
    assert list(bars[0].get_ydata()) == [2, 0.5]


def test_a_family_is_drawn_over_its_formula():
    ax = plotting.family((0.5, 1, 2), [1.0, 0.1, 1.0], [1.1, 0.1, 1.1], [1e-3, 1e-3, 2e-3], 3e-3)
    *series, at_zero = ax.get_lines()
    named = {line.get_label(): line.get_ydata() for line in series}
    assert list(named) == ["by the formula", "gap of the bound", "KL of the density"]
    np.testing.assert_allclose(named["by the formula"], [1.1, 0.1, 1.1])
    assert at_zero.get_ydata() == [3e-3]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "0.5", "1", "2"]


@pytest.mark.parametrize("n", [1, 2])
def test_flows_side_by_side_have_one_legend_and_the_same_limits(n):
    times, x = np.linspace(0, 1, 3), np.linspace(-6, 6, 401)[None].repeat(3, 0)
    p, paths = np.exp(-(x**2) / 2), np.zeros((3, 4))
    several = {f"flow {k}": (times, x + k, p, paths) for k in range(n)}
    one = plotting.flows(times, x[0], p, dict.fromkeys(several, paths), [0.5, 0.8])
    for fig, limits in (
        (plotting.flow_panels(several, [0.5, 0.8], (-2, 4)), (-2, 4)),
        (one, (-3, 3)),
    ):
        panels = [ax for ax in fig.axes if ax.get_xlabel()]
        assert [ax.get_ylim() for ax in panels] == [limits] * n
        assert [bool(ax.get_ylabel()) for ax in panels] == [True] + [False] * (n - 1)
        assert all(ax.get_legend() is None for ax in panels)
        assert len(fig.axes) == n + 1, "one colour bar"
        assert len({ax.collections[0].get_clim() for ax in panels}) == 1, "the same colours"
        (legend,) = fig.legends
        assert [text.get_text() for text in legend.get_texts()] == ["samples", "CDF = 0.5, 0.8"]
        for k, ax in enumerate(panels):
            assert len(ax.collections) == 1, "the density"
            (median, upper), place = ax.get_lines()[4:6], 0 if fig is one else k
            np.testing.assert_allclose(median.get_ydata(), place, atol=1e-3)
            np.testing.assert_allclose(upper.get_ydata(), place + 0.8416, atol=1e-3)
            assert [ax.get_title(), *(text.get_text() for text in ax.texts)].count(f"flow {k}") == 1
