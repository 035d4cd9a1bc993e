"""What is given at a terminal and cannot be: one line that names it, and no traceback."""

import io
import re
import sys

import pytest

from conftest import ROOT
from dlutils.tools import handout, notebooks, publish
from dlutils.tools.commands import parser_of

COMMANDS = [handout.main, notebooks.main, publish.main]


@pytest.mark.parametrize("main", COMMANDS, ids=lambda main: main.__module__)
def test_what_is_no_notebook_and_no_folder_is_named(main, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.ipynb").write_text('{"cells": []}')
    (tmp_path / "text.md").write_text("# Text")
    (tmp_path / "latin.ipynb").write_bytes(b"\xff")
    for arguments, message in (
        (["none.ipynb"], "no notebook 'none.ipynb'"),
        (["one.ipynb", "more"], "no notebook 'more'"),
        (["."], "'.' cannot be read"),
        (["text.md"], "'text.md' is not a notebook"),
        (["latin.ipynb"], "'latin.ipynb' is not a notebook"),
        (["one.ipynb", "--output", "text.md"], "text.md"),
        (["one.ipynb", "--output", "text.md/out"], "text.md"),
    ):
        with pytest.raises(SystemExit):
            main(arguments)
        last = capsys.readouterr().err.splitlines()[-1]
        assert re.match(r"python -m dlutils.tools.\w+: error: ", last)
        assert message in last
    for path in tmp_path.glob("*.ipynb"):
        path.unlink()
    with pytest.raises(SystemExit):
        main([])
    assert "there is no notebook in this folder" in capsys.readouterr().err


def test_a_screen_that_cannot_print_a_sign_prints_the_rest(monkeypatch):
    screen = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", screen)
    parser_of("dlutils.tools.sweep", test_a_screen_that_cannot_print_a_sign_prints_the_rest)
    print("0.1 ± 0.2")
    screen.flush()
    assert screen.buffer.getvalue().strip() == b"0.1 ? 0.2"


def test_words_with_blanks_stay_one_word():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert '--blank "$(BLANK)"' in makefile
