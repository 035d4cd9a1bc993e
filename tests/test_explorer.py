"""The explorer without a browser: its buttons pressed and its slider moved by the program."""

from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
from torch.distributions import Normal

from conftest import HANGS, ROOT
from dlutils import notebook, plotting
from dlutils.data.datasets import make_dataset
from dlutils.tools import explorer
from dlutils.tools.explorer import Explorer, Live
from dlutils.training import History

PNG = b"\x89PNG"


SIZES = ["small", "wrong", "interrupted"]


def load(name):
    return make_dataset(name, n_train=50, n_val=10, n_test=10)


def train(dataset, size, progress, callback):
    if size == "wrong":
        raise ValueError("size must be <small>")
    assert not progress
    history = History([-2.0, -1.5, -1.0], [0, 2], [-2.0, -1.1], 0.5)
    callback(None, history)
    if size == "interrupted":
        history.stopped = "interrupted at iteration 3"
        print("a word for nobody")
    normal = Normal(1.0, 0.5)
    return SimpleNamespace(log_likelihood=normal.log_prob, history=history)


def evolve(model):
    times, x = np.array([0, 0.5, 1]), np.linspace(-3, 3, 41)
    p = np.exp(-0.5 * (x - times[:, None]) ** 2)
    return times, x, p, np.zeros((3, 4))


@pytest.fixture
def widget():
    plotting.use_style()
    return Explorer(load, train, evolve, dataset=["gaussian", "laplace"], size=SIZES)


def test_train_then_move_in_time(widget, capsys):
    frames = []
    widget.fit.observe(lambda change: frames.append(change.new), "value")
    assert widget.slider.disabled
    widget.button.click()
    assert len(frames) == 2, "the curve while it trained, then curve and density"
    assert all(bytes(frame).startswith(PNG) for frame in frames)
    assert "mass <b>1.0000</b>" in widget.message.value
    assert "KL(truth ‖ model), mass divided out <b>" in widget.message.value
    assert not widget.slider.disabled
    assert not widget.button.disabled
    before = bytes(widget.moment.value)
    widget.slider.value = 0.0
    assert bytes(widget.moment.value).startswith(PNG)
    assert bytes(widget.moment.value) != before
    assert capsys.readouterr().out == ""


def test_what_is_wrong_is_shown_and_can_be_mended(widget):
    widget.menus["size"].value = "wrong"
    widget.button.click()
    assert widget.message.value == "<b>ValueError:</b> size must be &lt;small&gt;"
    assert not widget.button.disabled
    widget.menus["size"].value = "interrupted"
    widget.button.click()
    assert "interrupted at iteration 3" in widget.message.value
    assert not widget.slider.disabled


def test_without_a_front_end_nothing_is_shown(capsys):
    assert not explorer.has_front_end()
    explorer.show(load, train, evolve, dataset=["gaussian"], size=["small"])
    explorer.show_live(fit, dataset=["gaussian"], shift=[0.0])
    assert capsys.readouterr().out == ""


def fit(dataset, shift):
    if shift > 1:
        raise ValueError("shift must be <small>")
    normal = Normal(1.0 + shift, 0.5)
    below = lambda y, n_t, n_eps: normal.log_prob(y) - 0.25
    return load(dataset), SimpleNamespace(log_likelihood=normal.log_prob, elbo=below)


def test_a_density_follows_its_sliders():
    plotting.use_style()
    live = Live(fit, dataset=["gaussian", "laplace"], shift=[-0.5, 0.0, 0.5, 1.0, 2.0])
    assert live.controls["shift"].value == 0.5, "in the middle"
    assert "mass divided out <b>0.4999</b>" in live.message.value
    assert "gap of the bound <b>0.7500</b>" in live.message.value
    before = bytes(live.picture.value)
    assert before.startswith(PNG)
    live.controls["shift"].value = 0.0
    assert "0.0000</b> · gap of the bound <b>0.2500" in live.message.value
    assert bytes(live.picture.value) != before
    live.controls["shift"].value = 2.0
    assert live.message.value == "<b>ValueError:</b> shift must be &lt;small&gt;"
    live.controls["dataset"].value = "laplace"
    live.controls["shift"].value = 0.5
    assert "gap of the bound" in live.message.value


@pytest.mark.filterwarnings("default")
def test_a_kernel_knows_whether_a_front_end_asks(kernel):
    """JupyterLab says which cell it runs; nbclient, nbval and papermill do not."""
    _, client = kernel
    code = "from dlutils.tools import explorer; assert explorer.has_front_end() is {}"
    for metadata, expected in (({}, False), ({"cellId": "a"}, True)):
        content = {"code": code.format(expected), "silent": False}
        message = client.session.msg("execute_request", content, metadata=metadata)
        client.shell_channel.send(message)
        reply = client.get_shell_msg(timeout=HANGS)
        while reply["parent_header"]["msg_id"] != message["header"]["msg_id"]:
            reply = client.get_shell_msg(timeout=HANGS)
        assert reply["content"]["status"] == "ok", reply["content"]


def handed_over(name, function, monkeypatch, **others):
    """What a notebook's cell gives to a function of the explorer."""
    cells = nbformat.read(ROOT / f"{name}.ipynb", 4).cells
    (source,) = (cell.source for cell in cells if f"explorer.{function}(" in cell.source)
    shown = []
    monkeypatch.setattr(
        explorer, function, lambda *parts, **choices: shown.extend([parts, choices])
    )
    variables = {"truth": False, "given": make_dataset} | others
    exec(source, vars(notebook.load(ROOT / f"{name}.ipynb")) | variables)
    return shown


@pytest.mark.parametrize("name", ["ODE", "SDE"])
def test_the_notebooks_hand_over_what_can_be_trained(name, monkeypatch):
    (load, train, *_), choices = handed_over(name, "show", monkeypatch)
    chosen = {choice: next(iter(values)) for choice, values in choices.items()}
    assert load(chosen.pop("dataset")).is_known
    data = make_dataset("gaussian", 60, 20, 20)
    seen = lambda model, history: None
    model = train(data, **chosen, progress=False, callback=seen, n_iterations=1)
    assert model.log_likelihood(data.test).isfinite().all()


def test_the_notebook_hands_over_what_follows_its_sliders(monkeypatch):
    others = {"FAMILY": (0.25, 1.0, 4.0)}
    (solve,), choices = handed_over("BEYOND", "show_live", monkeypatch, **others)
    density = []
    for ends in (min, max):  # the fewest points, the least noise; the most
        chosen = {name: ends(values) for name, values in choices.items()}
        data, model = solve(**chosen)
        assert len(data.train) == chosen["n"]
        density.append(model.log_likelihood(data.test))
        assert density[-1].isfinite().all()
        assert model.elbo(data.test, 32, 16).isfinite().all()
    assert (density[0] - density[1]).abs().max() > 0.01, "the sliders do something"
