"""What of the page for the browser can be said without one; the rest is in tests/browser."""

import re
from html.parser import HTMLParser
from urllib.parse import parse_qsl

import pytest

from conftest import ROOT
from dlutils.data.datasets import DISTRIBUTIONS
from page import build

TEACHING = (ROOT / "docs" / "teaching.md").read_text(encoding="utf-8")
SITUATIONS = re.findall(r"\]\(\.\./page/index\.html#(\S*?)\)", TEACHING)


def test_the_file_is_what_the_command_makes():
    assert build.TARGET.read_text(encoding="utf-8") == build.page(), "run make page"


def test_it_is_small_and_asks_for_nothing():
    text = build.TARGET.read_text(encoding="utf-8")
    assert len(text.encode()) <= 300_000
    assert outward(text) == []
    assert outward('<img src="a.png">') == ["src="]
    assert outward('import { a } from "./b.js";\nfetch("c")') == ["import", "fetch("]


def outward(text):
    """What would ask for another file."""
    wanted = r"\bsrc=|\bimport\b(?= [{*\w]|\()|\bfetch\(|XMLHttpRequest|url\(|https?://"
    return re.findall(wanted, text)


def test_each_module_is_in_it_once():
    assert {path.stem for path in build.SOURCE.glob("*.js")} | {"table"} == set(build.MODULES)
    exported = {"table": {"TABLE"}}
    for name in build.MODULES[1:]:
        source = (build.SOURCE / f"{name}.js").read_text(encoding="utf-8")
        imports = re.findall(r'^import \{(.*?)\} from "\./(\w+)\.js"', source, re.DOTALL | re.M)
        assert len(imports) == source.count("import {")
        for names, module in imports:
            wanted = set(re.findall(r"\w+", names))
            assert wanted <= exported[module], f"what {name} imports, or its place"
        exported[name] = set(build.exports(source))
    assert not re.search(r"^(import|export)\b", build.script(), flags=re.MULTILINE)


def test_a_module_becomes_a_function():
    source = 'import {\n  a, b,\n} from "./one.js";\n\nexport const c = a;\nexport class D {}\n'
    assert build.in_function("two", source) == (
        "const two_js = (() => {\nconst {\n  a, b,\n} = one_js;\n\n"
        "const c = a;\nclass D {}\nreturn { c, D };\n})();\n"
    )


def test_all_known_densities_are_in_it_but_those_without_a_standard_deviation():
    rows = build.table()
    there = {row["inPackage"] for row in rows}
    assert there | build.LEFT_OUT.keys() == DISTRIBUTIONS.keys()
    assert not there & build.LEFT_OUT.keys()
    assert len({row["name"] for row in rows}) == len(rows)
    for row in rows:
        assert sum(weight for _, weight, _, _ in row["components"]) == pytest.approx(1)


class Ids(HTMLParser):
    """The ids of a page, and what its labels are for."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.labelled = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.labelled += [attributes["for"]] if tag == "label" and "for" in attributes else []


def test_the_script_finds_its_elements():
    found = Ids(build.TARGET.read_text(encoding="utf-8"))
    assert len(set(found.ids)) == len(found.ids)
    assert set(found.labelled) <= set(found.ids)
    main = (build.SOURCE / "main.js").read_text(encoding="utf-8")
    asked = set(re.findall(r'element\("([\w-]+)"\)', main))
    assert len(asked) > 10
    assert asked <= set(found.ids)


def test_situations_of_the_teaching_page_are_understood():
    state = (build.SOURCE / "state.js").read_text(encoding="utf-8")
    parts = re.findall(r"^  (\w+): \[", state, flags=re.MULTILINE)
    names = {row["name"] for row in build.table()}
    assert len(SITUATIONS) >= 5
    for situation in SITUATIONS:
        chosen = dict(parse_qsl(situation, strict_parsing=True))
        assert chosen.keys() <= set(parts)
        assert chosen.get("density", "claw") in names
