"""Widgets to try a notebook's program by hand: choose, watch it train, move in time.

The notebook hands over how its own program trains and what happens in time; nothing in here knows
an ODE from an SDE. Without a front end there is nobody to move a slider, so nothing is shown.
"""

import html
import io
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from typing import Any

import ipywidgets as widgets
import numpy as np
from IPython import get_ipython
from IPython.display import display
from matplotlib.figure import Figure

from dlutils import plotting
from dlutils.data.datasets import Dataset
from dlutils.evaluation import Comparison, compare
from dlutils.training import History

Evolution = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
SECONDS_A_FRAME = 0.3  # of the curves during training: drawing must not be what takes time
GRID = 401  # points of the integrals that are computed while a slider moves
NODES = (32, 16)  # of a bound's quadratures, likewise


def has_front_end() -> bool:
    """Whether somebody looks: JupyterLab, Notebook, VS Code and Colab; not nbconvert or nbval.

    The former say which cell they ask the kernel to run.
    """
    if "google.colab" in sys.modules:
        return True
    kernel = getattr(get_ipython(), "kernel", None)
    return kernel is not None and "cellId" in kernel.get_parent("shell").get("metadata", {})


def show(*arguments: Any, **choices: Sequence[str | int]) -> None:
    """Display an `Explorer`, if there is a front end."""
    if has_front_end():
        display(Explorer(*arguments, **choices).view)


def show_live(*arguments: Any, **choices: Sequence[str | float]) -> None:
    """Display a `Live`, if there is a front end."""
    if has_front_end():
        display(Live(*arguments, **choices).view)


class Explorer:
    """Choices, a button, curves that grow, and a slider in t.

    Args:
        load: From a dataset's name to the dataset.
        train: Called with the dataset, a value of each other choice, and what
            `dlutils.training.fit` takes as `progress` and `callback`; returns the model, which has
            `log_likelihood` and `history`.
        evolve: From the model to times `(k,)`, states `(k, n)` or `(n,)`, the density at them
            `(k, n)`, and samples `(k, m)`.
        quantity: Of the history: "log-likelihood" or "ELBO".
        choices: The values of `dataset` and of each of `train`'s keyword arguments; the first is
            where it starts.
    """

    def __init__(
        self,
        load: Callable[[str], Dataset],
        train: Callable[..., Any],
        evolve: Callable[[Any], Evolution],
        quantity: str = "log-likelihood",
        **choices: Sequence[str | int],
    ):
        self.load, self.train, self.evolve, self.quantity = load, train, evolve, quantity
        self.drawn = 0.0
        layout = widgets.Layout(width="18em")
        self.menus = {
            name: widgets.Dropdown(options=list(values), description=name, layout=layout)
            for name, values in choices.items()
        }
        self.button = widgets.Button(description="Train", button_style="primary")
        self.button.on_click(self.run)
        self.message = widgets.HTML("Choose, and press <b>Train</b>.")
        self.fit, self.moment = (widgets.Image(format="png", width=w) for w in (840, 420))
        self.slider = widgets.FloatSlider(1, min=0, max=1, step=0.01, description="t")
        self.slider.disabled = True
        self.slider.observe(self.draw_moment, "value")
        chosen = widgets.HBox([*self.menus.values(), self.button], layout={"flex_flow": "row wrap"})
        self.view = widgets.VBox([chosen, self.message, self.fit, self.slider, self.moment])
        self.view.add_class("explorer")

    def run(self, _: object = None) -> None:
        """Train what is chosen and draw it; say what was wrong with it instead, if it was."""
        chosen = {name: menu.value for name, menu in self.menus.items()}
        self.button.disabled = self.slider.disabled = True
        self.message.value = "training … (<i>Kernel → Interrupt</i> ends it early)"
        try:
            with redirect_stdout(io.StringIO()):  # why a run stopped is in its history
                dataset = self.load(chosen.pop("dataset"))
                show = lambda model, history: self.draw_history(dataset, history)
                model = self.train(dataset, **chosen, progress=False, callback=show)
            found = compare(dataset, model.log_likelihood)
            self.draw_fit(dataset, model.history, found)
            self.message.value = _words(dataset, model, found)
            self.evolution = self.evolve(model)
            self.draw_moment()
            self.slider.disabled = False
        except (Exception, KeyboardInterrupt) as error:  # nobody sees a traceback here
            self.message.value = _error(error)
        finally:
            self.button.disabled = False

    def draw_history(self, dataset: Dataset, history: History) -> None:
        """The training curve so far, at most once in `SECONDS_A_FRAME`."""
        if time.perf_counter() - self.drawn > SECONDS_A_FRAME and len(history.train) > 1:
            self.draw_fit(dataset, history)
            self.drawn = time.perf_counter()

    def draw_fit(self, dataset: Dataset, history: History, found: Comparison | None = None) -> None:
        """The training curve, and beside it the densities, once they are known."""
        fig = Figure(figsize=(plotting.PAGE, 2.4), layout="constrained")
        left, right = fig.subplots(1, 2)
        plotting.training_curve(history, dataset, left, self.quantity)
        if found is not None:
            plotting.density(dataset, found, right)
        self.fit.value = _png(fig)

    def draw_moment(self, _: object = None) -> None:
        """The density and the samples at the slider's t."""
        k = int(np.abs(self.evolution[0] - self.slider.value).argmin())
        fig = Figure(figsize=(plotting.COLUMN, 2), layout="constrained")
        plotting.moment(*self.evolution, k, fig.subplots())
        self.moment.value = _png(fig)


def _words(dataset: Dataset, model: Any, found: Comparison) -> str:
    """What came of a training: numbers, and why it stopped."""
    numbers = {
        "log-likelihood of the test points": model.log_likelihood(dataset.test).mean(),
        "mass": found.mass,
    }
    if dataset.distribution is not None:
        numbers["expected"] = dataset.expected_log_likelihood
        numbers["KL(truth ‖ model), mass divided out"] = found.normalized_kl
    if hasattr(model, "elbo"):
        numbers["ELBO of the test points"] = model.elbo(dataset.test).mean()
    words = [*_in_bold(numbers), f"<b>{model.history.seconds:.1f}</b> s", model.history.stopped]
    return " · ".join(filter(None, words))


class Live:
    """Sliders, and a density that follows them: for a fit that takes no longer than a moment.

    Args:
        fit: Called with a value of each choice; returns the dataset and the model, which has
            `log_likelihood` and may have `elbo`.
        choices: The values of each of `fit`'s keyword arguments, and where it starts in the middle
            of them; words make a menu, numbers a slider.
    """

    def __init__(
        self, fit: Callable[..., tuple[Dataset, Any]], **choices: Sequence[str | float]
    ) -> None:
        self.fit = fit
        self.controls = {name: _control(name, list(values)) for name, values in choices.items()}
        self.message = widgets.HTML()
        self.picture = widgets.Image(format="png", width=520)
        for control in self.controls.values():
            control.observe(self.draw, "value")
        self.view = widgets.VBox([*self.controls.values(), self.message, self.picture])
        self.view.add_class("live")
        self.draw()

    def draw(self, _: object = None) -> None:
        """Fit what is chosen and draw it; say what was wrong with it instead, if it was."""
        try:
            self.message.value = self._fit_and_draw()
        except Exception as error:  # nobody sees a traceback here
            self.message.value = _error(error)

    def _fit_and_draw(self) -> str:
        """The picture, and the numbers that belong to it."""
        start = time.perf_counter()
        dataset, model = self.fit(**{name: c.value for name, c in self.controls.items()})
        found = compare(dataset, model.log_likelihood, GRID)
        known, numbers = found.log_p is not None, {}
        if known:
            numbers["KL(truth ‖ model), mass divided out"] = found.normalized_kl
        if known and hasattr(model, "elbo"):
            numbers["gap of the bound"] = compare(dataset, lambda y: model.elbo(y, *NODES), GRID).kl
        fig = Figure(figsize=(1.5 * plotting.COLUMN, 2.4), layout="none")
        plotting.outline(dataset, found, fig.add_axes((0.1, 0.12, 0.88, 0.85)))
        self.picture.value = _png(fig)
        seconds = f"<b>{time.perf_counter() - start:.2f}</b> s"
        return " · ".join([*_in_bold(numbers), seconds])


def _control(name: str, values: list[str | float]) -> widgets.ValueWidget:
    """A menu of words, the first of them chosen, or a slider through numbers, in their middle."""
    options = {"description": name, "layout": widgets.Layout(width="32em")}
    if all(isinstance(value, str) for value in values):
        return widgets.Dropdown(options=values, **options)
    labels = [(f"{value:g}", value) for value in values]
    return widgets.SelectionSlider(options=labels, value=values[len(values) // 2], **options)


def _error(error: BaseException) -> str:
    reason = html.escape(str(error)) or "before the end; press Train again"
    return f"<b>{type(error).__name__}:</b> {reason}"


def _in_bold(numbers: dict[str, Any]) -> list[str]:
    return [f"{name} <b>{float(value):.4f}</b>" for name, value in numbers.items()]


def _png(fig: Figure) -> bytes:
    file = io.BytesIO()
    fig.savefig(file, format="png", dpi=120)
    return file.getvalue()
