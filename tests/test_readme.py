"""What the README tells people to type is run as it stands there."""

import re
import subprocess
import sys

import numpy as np
from conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_own_data_example_runs(tmp_path, monkeypatch):
    (code,) = (block for block in blocks("python") if "my_data" in block)
    np.savetxt(tmp_path / "my_data.csv", np.random.default_rng(0).gamma(4, size=500))
    (tmp_path / "ODE.ipynb").write_bytes((ROOT / "ODE.ipynb").read_bytes())
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("MPLBACKEND", "Agg")
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=tmp_path, check=True)
    assert (tmp_path / "figures" / "my_density.pdf").exists()


def test_sweep_example_runs(tmp_path, monkeypatch):
    (text,), (code,) = blocks("toml"), (block for block in blocks("python") if "sweep" in block)
    small = text.replace("n_iterations = 300", "n_iterations = 1\nn_train = 50\nn_test = 10")
    small = small.replace("[0, 1, 2]", "0").replace("[10, 100]", "[1, 2]")
    assert small.count("\n") == text.count("\n") + 2
    (tmp_path / "grid.toml").write_text(small, encoding="utf-8")
    (tmp_path / "ODE.ipynb").write_bytes((ROOT / "ODE.ipynb").read_bytes())
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("MPLBACKEND", "Agg")
    command = [sys.executable, "-W", "error"]
    sweep = [*command, "-m", "dlutils.sweep", "grid.toml"]
    done = subprocess.run(sweep, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert "16 runs, 0 failed: grid.jsonl" in done.stdout
    subprocess.run([*command, "-c", code], cwd=tmp_path, check=True)


def test_make_commands_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for command in re.findall(
        r"(?:`|^)make (?:-C \w+ )?([a-z][a-z-]*)", README, flags=re.MULTILINE
    ):
        assert re.search(rf"^{command}:", makefile, flags=re.MULTILINE), command


def test_links_and_figures_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target
