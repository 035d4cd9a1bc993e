"""What the README tells people to type is run as it stands there."""

import re
import subprocess
import sys

import numpy as np
from conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_own_data_example_runs(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    np.savetxt(tmp_path / "my_data.csv", np.random.default_rng(0).gamma(4, size=500))
    (tmp_path / "ODE.ipynb").write_bytes((ROOT / "ODE.ipynb").read_bytes())
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("MPLBACKEND", "Agg")
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=tmp_path, check=True)
    assert (tmp_path / "figures" / "my_density.pdf").exists()


def test_make_commands_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for command in re.findall(r"(?:`|^)make ([a-z]+)", README, flags=re.MULTILINE):
        assert re.search(rf"^{command}:", makefile, flags=re.MULTILINE), command


def test_links_and_figures_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target
