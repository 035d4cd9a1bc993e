import ast

import nbformat
import pytest

from conftest import ROOT
from dlutils.lesson import DEFAULTS, Lesson


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults_are_those_of_the_configuration_cell(name):
    cells = nbformat.read(ROOT / f"{name}.ipynb", 4).cells
    (source,) = (c.source for c in cells if "parameters" in c.metadata.get("tags", []))
    found = {
        target.id: ast.literal_eval(node.value)
        for node in ast.parse(source).body
        for target in node.targets
    }
    assert found == DEFAULTS[name]


def test_a_changed_setting_is_named_and_lets_every_result_pass(capsys):
    settings = DEFAULTS["ODE"] | {"COMPLEXITY_STEPS": list(DEFAULTS["ODE"]["COMPLEXITY_STEPS"])}
    unchanged = Lesson("ODE", settings)
    assert "its answers apply" in capsys.readouterr().out
    assert unchanged.holds(2 > 1, 3 > 2)
    assert not unchanged.holds(2 > 1, 1 > 2)
    assert "of 2 claims these do not hold, in their order: [2]" in capsys.readouterr().out
    assert not unchanged.quotes({"0.0024": 0.0026})
    assert "an answer quotes 0.0024, and 0.0026 was computed" in capsys.readouterr().out
    assert unchanged.quotes({"0.0024": 0.00249, "−0.0024": -0.0024, "10 000": 10_000})
    assert unchanged.quotes({"0.0024": [0.0024, "+0.0025 ± 0.0003"]})
    assert not unchanged.quotes({"0.0024": [0.0024, "-0.0024"]})
    assert unchanged.quotes({"12": 15}, within=0.3)
    assert not unchanged.quotes({"12": 17}, within=0.3)
    unchanged.on_this_machine(2 > 1, 1 > 2)
    assert "of 2 claims these do not hold, in their order: [2]" in capsys.readouterr().out
    unchanged.on_this_machine(2 > 1, 3 > 2)
    assert capsys.readouterr().out == "All 2 claims about times hold on this machine.\n"
    changed = Lesson("ODE", settings | {"SEED": 1})
    assert "SEED = 1" in capsys.readouterr().out
    assert changed.holds(1 > 2)
    changed.on_this_machine(1 > 2)
    assert not capsys.readouterr().out
    assert changed.quotes({"1": 5})
    assert changed.quotes(lambda: {"1": 1 / 0}), "not asked for"
    assert not unchanged.quotes(lambda: {"1": 5})


@pytest.mark.parametrize("name", DEFAULTS)
def test_claims_about_times_held_where_the_committed_outputs_were_made(name):
    cells = nbformat.read(ROOT / f"{name}.ipynb", 4).cells
    (cell,) = (c for c in cells if "lesson.on_this_machine(" in c.source)
    assert "claims about times hold on this machine." in "".join(
        o.get("text", "") for o in cell.outputs
    )


def test_some_claims_hold_whatever_the_settings_but_for_a_users_own_file(capsys):
    changed = Lesson("SDE", DEFAULTS["SDE"] | {"DATASET": "laplace"})
    assert changed.always(2 > 1)
    assert not changed.always(2 > 1, 1 > 2)
    own = Lesson("SDE", DEFAULTS["SDE"] | {"DATASET": "my.csv:y", "ROUNDING": 0.5})
    capsys.readouterr()
    assert own.always(1 > 2)
    assert "these do not hold, in their order: [1]" in capsys.readouterr().out
    assert own.own == {"drop_missing": False, "support": None, "rounding": 0.5, "weights": None}


def test_what_is_missing_or_unknown_is_named():
    with pytest.raises(ValueError, match="unknown notebook 'PDE'; choose from ODE, SDE"):
        Lesson("PDE", {})
    with pytest.raises(ValueError, match="the setting DATASET is missing"):
        Lesson("ODE", {})
