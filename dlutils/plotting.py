"""The figures of the notebooks: one style, one colour for one thing, files for a report.

What draws one panel draws on `ax` (a new figure's if None) and returns it; what draws several
returns the figure. They take as many items as they are given. None trains, none shows.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import QuadMesh
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from PIL import Image

from dlutils.data.datasets import Dataset
from dlutils.evaluation import Comparison, constant_cdf, slope
from dlutils.training import History

COLUMN = 3.4  # width of a report's column, inches
PAGE = 7.0  # width of a page's text, inches

COLORS = {  # Okabe & Ito's palette, safe for colour-blind readers
    "data": "0.85",
    "truth": "black",
    "model": "#0072B2",
    "bound": "#D55E00",
    "validation": "#009E73",
    "path": "0.35",
    "quantile": "#E69F00",
}
SERIES = ("#CC79A7", "#56B4E9", "#8C6D31", "#6A3D9A", "#E69F00", "#7F7F7F")  # nothing from above
MODELS = {  # where an ODE stands beside an SDE
    "ODE": {"color": SERIES[0], "ls": "-."},
    "SDE": {"color": COLORS["model"], "ls": "--"},
    "SDE, its ELBO": {"color": COLORS["bound"], "ls": ":"},
}
SDES = {  # where one that is trained stands beside those that are solved for
    "trained": {"color": SERIES[0], "ls": "-."},
    "solved, one Gaussian": {"color": SERIES[2], "ls": ":"},
    "solved, chosen": {"color": COLORS["model"], "ls": "--"},
}
PAGE_DPI = 110  # of figures as wide as a page, on the screen
Styles = Mapping[str, Mapping[str, object]]  # of some of the lines, by name
NO_STYLES: Styles = MappingProxyType({})
MARKERS = "os^vDxP*"
DASHES = ("-", "--", "-.", ":")


def line_style(k: int) -> dict[str, object]:
    """Colour, marker and dashes of the k-th of any number of lines, no two alike for long."""
    return {
        "color": SERIES[k % len(SERIES)],
        "marker": MARKERS[k % len(MARKERS)],
        "ls": DASHES[k % len(DASHES)],
        "ms": 3,
    }


def use_style() -> None:
    """Make the report style the default of this session."""
    plt.style.use("dlutils.report")


def density(dataset: Dataset, fit: Comparison, ax: Axes | None = None) -> Axes:
    """Fitted and true density over a histogram of the training data."""
    ax = _axes(ax)
    low, high = fit.y[0], fit.y[-1]
    bins = np.linspace(low, high, 121)
    ax.hist(dataset.train, bins=bins, density=True, color=COLORS["data"], label="training data")
    _truth_and_model(ax, fit)
    ax.set(xlabel="$y$", ylabel="density", xlim=(low, high), title=dataset.title)
    ax.set_ylim(top=1.2 * ax.get_ylim()[1])  # room for the legend above the data
    ax.legend(loc="upper center", ncols=3, columnspacing=1, handlelength=1.5)
    return ax


def banded(
    x: np.ndarray,
    density: np.ndarray,
    band: tuple[np.ndarray, np.ndarray],
    sample: tuple[np.ndarray, ArrayLike | None, float],
    ax: Axes | None = None,
    *,
    level: float,
) -> Axes:
    """A density with its band over a histogram.

    Args:
        x: Places, increasing, shape `(m,)`.
        density: At these, `(m,)`, per unit of x.
        band: Its low and high ends there.
        sample: Values, `(n,)`, their weights or None, and which share of all they are.
        ax: Where to draw.
        level: Of the band, for the legend.
    """
    ax, (values, weights, share) = _axes(ax), sample
    counts, edges = np.histogram(values, 80, (x[0], x[-1]), density=True, weights=weights)
    ax.stairs(share * counts, edges, fill=True, color=COLORS["data"], label="data")
    ax.plot(x, density, color=COLORS["model"], label="density")
    shade(ax, x, band, f"{level:.0%} band")
    peak = density[np.isfinite(density)].max()
    top = max(peak, share * counts.max(), min(2 * peak, np.nanmax(band[1])))
    ax.set(xlabel="$y$", ylabel="density", xlim=(x[0], x[-1]), ylim=(0, 1.2 * top))
    return ax


def shade(ax: Axes, x: np.ndarray, ends: tuple[np.ndarray, np.ndarray], label: str) -> None:
    """Shade a band between its low and its high end at x, `(m,)` each, and name it."""
    ax.fill_between(x, *ends, color=COLORS["model"], alpha=0.25, lw=0, label=label)
    ax.legend(loc="upper center", ncols=3, columnspacing=1, handlelength=1.5)


def outline(dataset: Dataset, fit: Comparison, ax: Axes) -> Axes:
    """Histogram, truth and model as `density` shows them, drawn in a tenth of the time."""
    counts, edges = np.histogram(dataset.train, np.linspace(fit.y[0], fit.y[-1], 81), density=True)
    ax.stairs(counts, edges, fill=True, color=COLORS["data"], label="training data")
    _truth_and_model(ax, fit)
    ax.set(xlim=(fit.y[0], fit.y[-1]), ylim=(0, None))
    ax.legend(fontsize=6)
    return ax


def densities(dataset: Dataset, fits: Mapping[str, Comparison]) -> Figure:
    """`densities_side_by_side` of one data set."""
    return densities_side_by_side([(dataset, fits)])


def densities_side_by_side(
    columns: Sequence[tuple[Dataset, Mapping[str, Comparison]]],
    limit: float = 0.3,
    styles: Styles = NO_STYLES,
) -> Figure:
    """Any number of fitted densities over the true one, and below it their errors in the logarithm.

    Args:
        columns: Of each column the data set, whose density must be known, and fits by name. One
            whose error leaves the lower panel almost everywhere is not drawn there.
        limit: Of the lower panel, nats.
        styles: Of some of the lines, in place of `line_style`.
    """
    n = len(columns)
    size = {"figsize": (COLUMN, 3.8)} if n == 1 else {"figsize": (PAGE, 3.8), "dpi": PAGE_DPI}
    fig, axes = plt.subplots(2, n, sharex="col", squeeze=False, **size)
    for (dataset, fits), (top, bottom) in zip(columns, axes.T, strict=True):
        some = next(iter(fits.values()))
        p = np.exp(some.log_p)
        seen = p > 1e-3 * p.max()
        top.plot(some.y, p, color=COLORS["truth"], lw=0.8, label="truth")
        bottom.axhline(0, color=COLORS["truth"], lw=0.5)
        for k, (name, fit) in enumerate(fits.items()):
            style = line_style(k) | {"marker": None, "lw": 0.9} | styles.get(name, {})
            top.plot(fit.y, np.exp(fit.log_q), label=name.replace("_", " "), **style)
            error = fit.log_q - fit.log_p
            if np.median(np.abs(error[seen])) < limit:
                bottom.plot(fit.y, error, **style)
        top.set(xlim=(some.y[seen][0], some.y[seen][-1]), title=dataset.title)
        bottom.set(xlabel="$y$", ylim=(-limit, limit))
    axes[0, 0].set_ylabel("density")
    axes[1, 0].set_ylabel(r"$\log q(y)-\log p(y)$")
    _legend_above(axes[0, 0], 3 if n == 1 else 4)
    return fig


def gallery(fits: Sequence[tuple[Dataset, Comparison]]) -> Figure:
    """Fitted and true densities side by side, one panel each, with one legend; three a row."""
    fig, axes = _page(len(fits), 2, most=3, dpi=None)
    for (dataset, fit), ax in zip(fits, axes, strict=True):
        density(dataset, fit, ax).get_legend().remove()
        ax.set_ylabel("density" if ax in axes[::3] else "")
    _legend_above(axes[0], 3)
    return fig


def lines(
    x: Sequence[float],
    series: Mapping[str, ArrayLike],
    ax: Axes | None = None,
    *,
    slopes: bool = False,
    styles: Styles = NO_STYLES,
    **labels: object,
) -> Axes:
    """Any number of lines on logarithmic axes, with ticks where the measurements are.

    Args:
        x: Shape `(k,)`, positive.
        series: By name, `(k,)` each.
        ax: Where to draw.
        slopes: Whether the legend gives each line's slope (`dlutils.evaluation.slope`).
        styles: Of some of the lines, in place of `line_style`.
        labels: Of `Axes.set`.
    """
    ax = _axes(ax)
    for k, (name, values) in enumerate(series.items()):
        values = np.maximum(np.asarray(values, dtype=float), 1e-16)  # zero has no logarithm
        label = f"{name}: slope {slope(x, values):.2f}" if slopes else name
        style = line_style(k) | styles.get(name, {})
        ax.loglog(x, values, label=label.replace("_", " "), **style)
    _ticks_at(ax, x)
    ax.set(**labels)
    ax.legend(fontsize=6)
    return ax


def panels(
    x: Sequence[float],
    series_by_title: Mapping[str, Mapping[str, ArrayLike]],
    **options: object,
) -> Figure:
    """`lines` in panels side by side, each with what its vertical axis shows as its key."""
    fig, axes = _page(len(series_by_title), 2.2)
    for (title, series), ax in zip(series_by_title.items(), axes, strict=True):
        lines(x, series, ax, xlabel="$T$", ylabel=title, **options)
    return fig


def curves(
    x: ArrayLike,
    series: Mapping[str, ArrayLike],
    ax: Axes | None = None,
    styles: Styles = NO_STYLES,
    **labels: object,
) -> Axes:
    """Any number of smooth curves without markers: see `lines` for what is given."""
    ax = _axes(ax)
    for k, (name, values) in enumerate(series.items()):
        ax.plot(x, values, label=name, **line_style(k) | {"marker": None} | styles.get(name, {}))
    ax.set(**labels)
    ax.legend(fontsize=6)
    return ax


def curve_panels(
    panels: Sequence[tuple[ArrayLike, Mapping[str, ArrayLike], Mapping[str, object]]],
    styles: Styles = NO_STYLES,
) -> Figure:
    """`curves` side by side: of each panel the x, the series by name, and the axes' settings.

    Where all have the same names, the legend stands in the first; a single curve needs none.
    """
    fig, axes = _page(len(panels), 2.1)
    names = [list(series) for _, series, _ in panels]
    shared = len(panels) > 1 and all(of == names[0] for of in names)
    for k, ((x, series, labels), ax) in enumerate(zip(panels, axes, strict=True)):
        curves(x, series, ax, styles, **labels)
        if len(series) == 1 or (shared and k):
            ax.get_legend().remove()
    if shared and axes[0].get_yscale() == "linear":
        low, high = axes[0].get_ylim()
        axes[0].set_ylim(top=high + 0.35 * (high - low))  # room for it
        axes[0].legend(fontsize=6, loc="upper left", ncols=2, columnspacing=1)
    return fig


def family(
    r: Sequence[float],
    gaps: Sequence[float],
    predicted: Sequence[float],
    kl: Sequence[float],
    kl_at_zero: float,
    ax: Axes | None = None,
) -> Axes:
    """Gap of the bound, what a formula says of it, and KL of the density in nats, `(k,)` each.

    They are drawn by r, `(k,)`, increasing, the variance of the noise in units of the best one; the
    KL at r = 0, where the bound is infinite, stands at the left, apart from the logarithmic axis.
    """
    series = {"by the formula": predicted, "gap of the bound": gaps, "KL of the density": kl}
    styles = {
        "by the formula": {"color": "0.8", "marker": None, "ls": "-", "lw": 5},  # under the others
        "gap of the bound": {"color": COLORS["bound"], "ls": "--"},
        "KL of the density": {"color": COLORS["model"], "ls": "--"},
    }
    labels = {"xlabel": r"$r=\sigma^2/\sigma_*^2$", "ylabel": "nats"}
    ax = lines(r, series, ax, styles=styles, **labels)
    zero = r[0] ** 2 / r[1]
    ax.plot(zero, kl_at_zero, color=COLORS["model"], marker=line_style(2)["marker"], ms=3)
    _ticks_at(ax, [zero, *r])
    ax.set_xticklabels(["0", *(f"{value:g}" for value in r)])
    return ax


def tightening(
    sizes: Sequence[int],
    below: Mapping[str, Sequence[tuple[float, float]]],
    bound: float,
    ax: Axes | None = None,
) -> Axes:
    """How far bounds of K samples lie below the log-likelihood, with standard errors.

    Args:
        sizes: The numbers of samples K, `(k,)`.
        below: By name: for each K the log-likelihood minus the bound of K samples, and its error,
            nats.
        bound: The log-likelihood minus the bound without a sample.
        ax: Where to draw.
    """
    ax = _axes(ax)
    for k, (name, of) in enumerate(below.items()):
        means, errors = zip(*of, strict=True)
        style = {"color": COLORS["bound"], "ls": DASHES[k % 3], "ms": 3}
        ax.errorbar(sizes, means, errors, label=name, **style)
    ax.axhline(bound, ls=":", color=COLORS["bound"], label="ELBO by quadrature")
    ax.axhline(0, color=COLORS["model"], lw=0.8, label="log-likelihood (Fokker–Planck)")
    ax.set(xlabel="$K$", xscale="log", ylabel="log-likelihood $-$ bound / nats")
    _ticks_at(ax, sizes)
    ax.legend(fontsize=6)
    return ax


def heat_maps(
    values: Mapping[tuple[str, str, str], float],
    notes: Mapping[tuple[str, str, str], float],
    labels: tuple[str, str, str],
    colorbar: str,
) -> Figure:
    """Positive numbers by three names as coloured cells on a logarithmic scale, three maps a row.

    The smaller, the brighter, and the smallest of a map is bold.

    Args:
        values: By (map, row, column): a cell's colour and its upper number.
        notes: By the same keys: its lower number, in brackets.
        labels: Of a map, with {} for its name; of the rows; of the columns.
        colorbar: What the colour shows.
    """
    titles, rows, columns = (list(dict.fromkeys(key[k] for key in values)) for k in range(3))
    fig, axes = _page(len(titles), 0.3 + 0.38 * len(rows), most=3, sharey=True)
    norm = LogNorm(min(values.values()), max(values.values()))
    words = lambda name: name.replace("_", " ")
    short = lambda value: f"{value:.0f}" if abs(value) >= 10 else f"{value:.2g}"
    for title, ax in zip(titles, axes, strict=True):
        cells = np.array([[values[title, row, column] for column in columns] for row in rows])
        image = ax.imshow(cells, norm=norm, cmap="cividis_r", aspect="auto")
        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                text = f"{short(cells[i, j])}\n({short(notes[title, row, column])})"
                ink = "white" if norm(cells[i, j]) > 0.5 else "black"
                weight = "bold" if cells[i, j] == cells.min() else "normal"
                ax.text(j, i, text, ha="center", va="center", c=ink, fontsize=6, weight=weight)
        ax.set_xticks(range(len(columns)), map(words, columns), fontsize=5.5)
        ax.set_yticks(range(len(rows)), map(words, rows))
        ax.set_title(words(labels[0].format(title)))
        ax.tick_params(length=0)
    fig.supylabel(labels[1], fontsize=8)
    fig.supxlabel(labels[2], fontsize=8)
    fig.colorbar(image, ax=list(axes), label=colorbar, pad=0.01)
    return fig


def training_curve(
    history: History,
    dataset: Dataset,
    ax: Axes | None = None,
    quantity: str = "log-likelihood",
) -> Axes:
    """Training and validation log-likelihood by iteration, and what the truth has to expect.

    `quantity` names what was recorded: a "log-likelihood", or an "ELBO", drawn in a bound's colour.

    The black line is the expected log-likelihood, a mean over the test set. Training and validation
    points are other samples: the dotted line in each curve's colour is the truth on its own points.
    The vertical axis shows where the last nine tenths of the run take place.
    """
    ax, bound = _axes(ax), quantity != "log-likelihood"
    color = COLORS["bound" if bound else "model"]
    noisy = {"lw": 0.5, "alpha": 0.4} if bound else {}
    ax.plot(history.train, color=color, label="training", **noisy)
    ax.plot(history.val_iteration, history.val, ".", color=COLORS["validation"], label="validation")
    late = len(history.train) // 10
    validated = zip(history.val_iteration, history.val, strict=True)
    shown = [*history.train[late:], *(value for k, value in validated if k >= max(late, 1))]
    if dataset.is_known:
        for name, y, its in (
            ("training", dataset.train, color),
            ("validation", dataset.val, COLORS["validation"]),
        ):
            shown.append(float(dataset.log_prob(y).mean()))
            ax.axhline(shown[-1], color=its, lw=0.8, ls=":", label=f"truth, {name} points")
        shown.append(dataset.expected_log_likelihood)
        ax.axhline(shown[-1], color=COLORS["truth"], lw=0.8, label="expected log-likelihood")
    low, high = min(shown, default=-1.0), max(shown, default=0.0)
    margin = 0.08 * (high - low) + 1e-3
    if bound:
        low -= 0.4 * (high - low)  # room for the legend below the noise
    ax.set(xlabel="iteration", ylabel=f"{quantity} / nats", ylim=(low - margin, high + margin))
    ax.legend(loc="lower right", bbox_to_anchor=(1, 0 if bound else 0.06))
    return ax


def training(history: History, dataset: Dataset, quantity: str = "log-likelihood") -> Figure:
    """`training_curve`, and beside it the truth minus the validation points' value on a log axis.

    The second panel is there if the truth is known.
    """
    if not dataset.is_known:
        return training_curve(history, dataset, quantity=quantity).figure
    fig, (left, right) = _page(2, 2.2)
    training_curve(history, dataset, left, quantity)
    below = float(dataset.log_prob(dataset.val).mean()) - np.array(history.val)
    right.semilogy(history.val_iteration, below, ".-", color=COLORS["validation"], lw=0.8)
    right.set(xlabel="iteration", ylabel=f"truth $-$ {quantity} / nats, validation points")
    return fig


def flow(
    times: ArrayLike,
    x: ArrayLike,
    p: ArrayLike,
    paths: ArrayLike,
    quantiles: ArrayLike,
    levels: Sequence[float],
    ax: Axes | None = None,
) -> Axes:
    """Heat map of p(x, t) with sample trajectories and paths of constant CDF.

    Args:
        times: Shape `(k,)`.
        x: States at those times, increasing along the second axis, shape `(k, m)`.
        p: Density at those states, shape `(k, m)`.
        paths: Sample trajectories, shape `(k, number of samples)`.
        quantiles: Where the CDF of p(., t) equals each level, shape `(k, len(levels))`.
        levels: The CDF values.
        ax: Where to draw.
    """
    ax = _axes(ax)
    _colour_bar(_flow((times, x, p, paths, quantiles), levels, np.max(p), ax), [ax])
    above = {"loc": "lower center", "bbox_to_anchor": (0.5, 1), "ncols": 2}
    ax.legend(fontsize=6, columnspacing=1, handlelength=1.2, **above)
    return ax


def _flow(parts: Sequence[ArrayLike], levels: Sequence[float], top: float, ax: Axes) -> QuadMesh:
    """`flow` of times to quantiles without bar and legend; `top` is what has the last colour."""
    times, x, p, paths, quantiles = map(np.asarray, parts)
    at = np.broadcast_to(times[:, None], x.shape)
    mesh = ax.pcolormesh(at, x, p, shading="gouraud", vmin=0, vmax=top, rasterized=True)
    ax.plot(times, paths, color=COLORS["path"], lw=0.4)
    ax.plot(times, quantiles, color=COLORS["quantile"], lw=1, ls="--")
    ax.plot([], [], color=COLORS["path"], lw=0.4, label="samples")
    shown = ", ".join(f"{level:g}" for level in levels)
    ax.plot([], [], color=COLORS["quantile"], lw=1, ls="--", label=f"CDF = {shown}")
    seen = x[p > 1e-3 * p.max()]
    limits = {"xlim": (times[0], times[-1]), "ylim": (seen.min(), seen.max())}
    ax.set(xlabel="$t$ (0: prior, 1: data)", ylabel="$x_t$", **limits)
    return mesh


def _colour_bar(mesh: QuadMesh, axes: Sequence[Axes]) -> None:
    mesh.figure.colorbar(mesh, ax=list(axes), label="$p(x, t)$", pad=0.02)


def flows(
    times: ArrayLike,
    x: ArrayLike,
    p: ArrayLike,
    paths: Mapping[str, ArrayLike],
    levels: Sequence[float],
    *,
    xlabel: str = "$t$ (0: prior, 1: data)",
) -> Figure:
    """The same densities with several kinds of paths by title, one panel each: see `flow`.

    The states x, `(m,)`, are the same at all times, which may be those of another clock; those from
    -3 to 3 are shown.
    """
    x, p = np.asarray(x), np.asarray(p)
    quantiles = constant_cdf(np.broadcast_to(x, p.shape), p, levels)
    seen = np.flatnonzero((x > -3.1) & (x < 3.1))
    seen, thin = seen[:: max(1, len(seen) // 200)], slice(None, None, max(1, len(times) // 200))
    states = np.broadcast_to(x[seen], (len(times[thin]), len(seen)))
    shared = times[thin], states, p[thin][:, seen]
    shown = [(*shared, lines_of[thin], quantiles[thin]) for lines_of in paths.values()]
    fig, axes = _flow_row(shown, levels, (-3, 3), PAGE_DPI)
    for title, ax in zip(paths, axes, strict=True):
        ax.set_xlabel(xlabel)
        ax.text(0.03, 0.04, title, transform=ax.transAxes)
    return fig


def flow_panels(
    flows: Mapping[str, tuple[ArrayLike, ArrayLike, ArrayLike, ArrayLike]],
    levels: Sequence[float],
    limits: tuple[float, float] = (-3, 3),
) -> Figure:
    """Several flows side by side, by title: times, states, density and paths, see `flow`."""
    shown = [(*parts, constant_cdf(*parts[1:3], levels)) for parts in flows.values()]
    fig, axes = _flow_row(shown, levels, limits, dpi=80)
    for title, ax in zip(flows, axes, strict=True):
        ax.set_title(title)
    return fig


def _flow_row(
    flows: Sequence[tuple[ArrayLike, ...]],
    levels: Sequence[float],
    limits: tuple[float, float],
    dpi: float,
) -> tuple[Figure, Sequence[Axes]]:
    """Panels of `flow` with one legend, colours and limits; the label of x is at the first."""
    fig, axes = _page(len(flows), 2, dpi=dpi, sharey=True)
    top = max(np.max(p) for _, _, p, *_ in flows)
    for parts, ax in zip(flows, axes, strict=True):
        mesh = _flow(parts, levels, top, ax)
        ax.set(ylim=limits, ylabel="$x_t$" if ax is axes[0] else "")
    _colour_bar(mesh, axes)
    _legend_above(axes[0], 2)
    return fig, axes


def moment(
    times: ArrayLike,
    x: ArrayLike,
    p: ArrayLike,
    paths: ArrayLike,
    k: int,
    ax: Axes,
) -> None:
    """The density at the k-th time with samples under it, on the axes that all times need.

    Shapes are as for `flow`; the states x may also be the same at all times, `(m,)`. What was on
    the axes before is wiped out.
    """
    p, paths = np.asarray(p), np.asarray(paths)
    x = np.broadcast_to(x, p.shape)
    seen, top = x[p > 1e-3 * p.max()], p.max()
    ax.clear()
    ax.plot(x[k], p[k], color=COLORS["model"])
    ax.plot(paths[k], np.full(paths.shape[1], -0.04 * top), ".", color=COLORS["path"], ms=3)
    ax.text(0.03, 0.9, f"$t={times[k]:.2f}$", transform=ax.transAxes)
    ax.set(xlim=(seen.min(), seen.max()), ylim=(-0.08 * top, 1.05 * top))
    ax.set(xlabel="$x_t$", ylabel="$p(x, t)$")


def animate_flow(
    path: Path, times: ArrayLike, x: ArrayLike, p: ArrayLike, paths: ArrayLike
) -> None:
    """Write a GIF of a density on its way from prior to data: `moment` for each of the times.

    It has 16 frames a second and stays at the last for another second.
    """
    fig = Figure(figsize=(COLUMN, 2), dpi=144)
    canvas, ax = FigureCanvasAgg(fig), fig.subplots()
    frames = []
    for k in range(len(times)):
        moment(times, x, p, paths, k, ax)
        canvas.draw()
        fig.set_layout_engine("none")  # all frames are laid out as the first
        frames.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))
    palette = frames[0].quantize()
    frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    milliseconds = [1000 // 16] * (len(frames) - 1) + [1000 * 17 // 16]
    path.parent.mkdir(parents=True, exist_ok=True)
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=milliseconds, loop=0)


def save_figure(fig: Figure, name: str, folder: str | Path = "figures") -> None:
    """Write `folder/name.pdf` and `.png`, the same bytes every time."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    fig.savefig(folder / f"{name}.pdf", metadata={"CreationDate": None, "ModDate": None})
    fig.savefig(folder / f"{name}.png", metadata={"Software": None})


def _truth_and_model(ax: Axes, fit: Comparison) -> None:
    if fit.log_p is not None:
        ax.plot(fit.y, np.exp(fit.log_p), color=COLORS["truth"], label="truth $p(y)$")
    ax.plot(fit.y, np.exp(fit.log_q), "--", color=COLORS["model"], label="model")


def _ticks_at(ax: Axes, x: Sequence[float]) -> None:
    """Ticks of a logarithmic axis where the values are, and nowhere else."""
    ax.set_xticks(x, labels=[f"{value:g}" for value in x])
    ax.set_xticks([], minor=True)


def _axes(ax: Axes | None) -> Axes:
    return plt.subplots()[1] if ax is None else ax


def _page(
    n: int, height: float, most: int | None = None, **options: object
) -> tuple[Figure, Sequence[Axes]]:
    """A figure as wide as a page with n panels, at most so many in a row, each so high, inches."""
    columns = min(n, most or n)
    rows = -(-n // columns)
    options = {"figsize": (PAGE, 0.4 + rows * height), "dpi": PAGE_DPI, "squeeze": False} | options
    fig, axes = plt.subplots(rows, columns, **options)
    for ax in axes.flat[n:]:
        ax.remove()
    return fig, axes.flat[:n]


def _legend_above(ax: Axes, ncols: int) -> None:
    """One legend for all panels of a figure, as that of one of them."""
    shown = ax.get_legend_handles_labels()
    ax.figure.legend(*shown, loc="outside upper center", ncols=ncols)
