"""Write page/index.html, the page for the browser: `python -m page.build`, or `make page`.

The file holds the modules of page/src one behind the other, and the known densities as
`dlutils.data` has them. A browser loads no modules from a folder, so imports and exports are
replaced. The file needs nothing else.
"""

import json
import re
from pathlib import Path

import torch
from torch.distributions import Distribution, MixtureSameFamily

from dlutils.data import benchden
from dlutils.data.datasets import DISTRIBUTIONS, density_of
from dlutils.settings import choose

SOURCE = Path(__file__).parent / "src"
TARGET = Path(__file__).parent / "index.html"
MODULES = ("table", "numerics", "densities", "flow", "smooth", "solve", "sde", "draw")
MODULES += ("words", "odeview", "sdeview", "state", "main")
EXPORTED = r"^export (?=(?:const|function|class) (\w+))"
FAMILIES = {  # family in densities.js, and the names of location and scale in torch.distributions
    "Normal": ("normal", "loc", "scale"),
    "Laplace": ("laplace", "loc", "scale"),
    "StudentT": ("student_t_5", "loc", "scale"),
    "Gumbel": ("gumbel", "loc", "scale"),
    "Exponential": ("exponential", None, None),
    "Weibull": ("rayleigh", None, None),
    "LogNormal": ("log_normal", None, None),
    "Beta": ("beta_2_2", None, None),
}
TRIPLES = {  # families, locations and scales of densities that are no torch.distributions
    benchden.LOGISTIC: [("logistic", 0, 1)],
    benchden.TRIANGLE: [("triangle", 0, 1)],
    benchden.CALIPER: [("caliper", 0, 1)],
    benchden.SAWTOOTH: [("triangle", k, 1) for k in range(-9, 10, 2)],
}
LEFT_OUT = {  # without a standard deviation, in which the flow sees the data
    "benchden_06": "Cauchy",
    "benchden_09": "Pareto",
    "benchden_10": "symmetric Pareto",
    "benchden_20": "inverse exponential",
}


def components(source: Distribution | tuple) -> list[tuple[str, float, float, float]]:
    """Family, weight, location and scale of each component."""
    if not isinstance(source, Distribution):
        found = TRIPLES[source]
        return [(name, 1 / len(found), *place) for name, *place in found]
    weights, each = [1.0], source
    if isinstance(source, MixtureSameFamily):
        weights, each = source.mixture_distribution.probs.tolist(), source.component_distribution
    if type(each).__name__ == "Uniform":
        name, loc, scale = "uniform", each.low, each.high - each.low
    else:
        name, loc, scale = choose("family", type(each).__name__, FAMILIES)
        loc = getattr(each, loc) if loc else torch.zeros(())
        scale = getattr(each, scale) if scale else torch.ones(())
    places = loc.reshape(-1).tolist(), scale.reshape(-1).tolist()
    rows = zip(weights, *places, strict=True)
    return [(name, *(rounded(value, 12) for value in row)) for row in rows]


def rounded(value: float, digits: int) -> float:
    """To digits that do not depend on the processor."""
    return float(f"{value:.{digits}g}")


def table() -> list[dict[str, object]]:
    """The known densities, by the names that addresses have."""
    rows = {}
    for package_name, entry in DISTRIBUTIONS.items():
        if package_name in LEFT_OUT:
            continue
        description, density = density_of(package_name)
        source = entry[1]
        source = source() if callable(source) and not isinstance(source, Distribution) else source
        published = r"(Marron & Wand|Berlinet & Devroye) .*number \d+, ([^:]+): (.*)"
        numbered = re.search(published, description)
        title = numbered[2] if numbered else package_name.replace("_", " ")
        name = re.sub(r"\W+", "_", title.lower())
        name = package_name if name in rows else name
        rows[name] = {
            "name": name,
            "inPackage": package_name,
            "title": title[:1].upper() + title[1:],
            "group": numbered[1] if numbered else "",
            "formula": numbered[3] if numbered else description,
            "support": [rounded(end, 5) for end in density.support],
            "components": components(source),
        }
    return list(rows.values())


def script() -> str:
    """All modules as one, each in a function of its own, which returns what it exports."""
    rows = ",\n".join(json.dumps(row, ensure_ascii=False) for row in table())
    parts = [in_function("table", f"export const TABLE = [\n{rows},\n];\n")]
    for name in MODULES[1:]:
        parts.append(in_function(name, (SOURCE / f"{name}.js").read_text(encoding="utf-8")))
    return "\n".join(parts)


def exports(source: str) -> list[str]:
    """The names that a module exports, one a line."""
    return re.findall(EXPORTED, source, flags=re.MULTILINE)


def in_function(name: str, source: str) -> str:
    """A module as `const name_js = (() => { ... })();`, its imports taken from those before it."""
    imported = r'^import (\{.*?\}) from "\./(\w+)\.js";$'
    names = ", ".join(exports(source))
    source = re.sub(imported, r"const \1 = \2_js;", source, flags=re.DOTALL | re.MULTILINE)
    source = re.sub(EXPORTED, "", source, flags=re.MULTILINE)
    return f"const {name}_js = (() => {{\n{source.strip()}\nreturn {{ {names} }};\n}})();\n"


def page() -> str:
    """The whole file."""
    read = lambda name: (SOURCE / name).read_text(encoding="utf-8").strip()
    parts = {"/* style.css */": read("style.css"), "/* script */": script()}
    text = read("page.html") + "\n"
    for place, content in parts.items():
        assert text.count(place) == 1, place
        text = text.replace(place, content)
    return text


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
    print(f"{TARGET}: {TARGET.stat().st_size / 1000:.0f} kB")
