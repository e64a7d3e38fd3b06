"""The site is whole: links lead to places, nothing comes from elsewhere, no part of a notebook is lost."""

import importlib
import inspect
import pkgutil
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest

import sobolev_utils

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MODULES = [module.name for module in pkgutil.walk_packages(sobolev_utils.__path__, "sobolev_utils.")]
FORMULA = re.compile(r"\$\$(.+?)\$\$|\$([^$]+)\$", re.DOTALL)


class Page(HTMLParser):
    """What a page refers to and holds."""

    def __init__(self, path):
        super().__init__()
        self.path, self.text = path, path.read_text()
        self.links, self.loads, self.ids, self.classes, self.turns = [], [], set(), set(), {}
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        classes = given.get("class") or ""
        self.ids.add(given.get("id"))
        self.classes.update(classes.split())
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
            self.turns |= {turn: given["href"] for turn in ("left-prev", "right-next") if turn in classes}
        if tag == "link" and given["rel"] in ("stylesheet", "preload", "icon", "shortcut icon"):
            self.loads.append(given["href"])
        self.loads += [given[name] for name in ("src", "srcset", "data", "poster") if name in given]

    def target(self, url):
        """The file and the place in it that a link or a source of this page leads to."""
        place = urlsplit(url)
        return (self.path.parent / unquote(place.path)).resolve() if place.path else self.path, place.fragment


@pytest.fixture(scope="module")
def pages(site):
    found = {path.relative_to(site).as_posix(): Page(path) for path in sorted(site.rglob("*.html"))}
    return {name: page for name, page in found.items() if not name.startswith("_static/")}


def test_every_link_leads_to_a_file_and_a_place_in_it(site, pages):
    followed = 0
    for name, page in pages.items():
        for url in page.links:
            if urlsplit(url).scheme:
                continue
            file, fragment = page.target(url)
            assert file.is_file() and file.is_relative_to(site), f"{name}: {url}"
            if fragment:
                assert fragment in pages[file.relative_to(site).as_posix()].ids, f"{name}: {url}"
            followed += 1
    assert followed > 1000


def test_all_that_a_page_needs_lies_beside_it(site, pages):
    for name, page in pages.items():
        for url in page.loads:
            assert not urlsplit(url).netloc, f"{name}: {url}"
            assert page.target(url)[0].is_file(), f"{name}: {url}"
    for path in site.rglob("*.css"):
        used = re.findall(r"""url\(["']?(.*?)["']?\)|@import\s*["'](.*?)["']""", path.read_text())
        for url in filter(None, (url for found in used for url in found)):
            assert url.startswith("data:") or (path.parent / urlsplit(url).path).is_file(), f"{path.name}: {url}"


def test_the_home_page_has_the_table_the_figures_and_the_claims_of_the_readme(pages):
    home = pages["index.html"].text
    numbers = re.findall(r"-?\d\.\d+e[-+]\d+", (ROOT / "results" / "tables" / "missing_r2.md").read_text())
    assert len(numbers) == 84 and [number for number in numbers if f">{number}<" not in home] == []
    shown = {Path(url).name for url in pages["index.html"].loads}
    assert {"seed_spread.png", "beyond.png"} <= shown and "make reproduce" in home
    assert "python tests/benchmarks/repeat.py" in home


def test_every_section_of_the_readme_is_on_a_page(pages):
    text = pages["index.html"].text + pages["more.html"].text
    for title in re.findall("^##? (.+)", (ROOT / "README.md").read_text(), re.MULTILINE):
        assert f">{title}<" in text, title


def test_the_notebooks_stand_in_a_row(pages):
    names = ["index.html", *(f"notebooks/{path.stem}.html" for path in NOTEBOOKS)]
    for before, after in pairwise(names):
        assert pages[before].target(pages[before].turns["right-next"])[0] == pages[after].path
        assert pages[after].target(pages[after].turns["left-prev"])[0] == pages[before].path


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_page_has_each_formula_figure_and_table_of_its_notebook(path, pages):
    page = pages[f"notebooks/{path.stem}.html"]
    cells = nbformat.read(path, as_version=4).cells
    prose = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    outputs = [output.get("data", {}) for cell in cells for output in cell.get("outputs", [])]
    assert re.findall(r'(?<!whole">)<span class="math [^>]*>[^<]*</span>[.,;:)]', page.text) == []
    assert page.text.count('<span class="math ') + page.text.count('<div class="math ') == len(FORMULA.findall(prose))
    assert len(set(page.loads)) >= len({data["image/png"] for data in outputs if "image/png" in data})
    assert page.text.count('class="dataframe') == sum("text/html" in data for data in outputs)


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_is_in_the_reference(name, pages):
    module = importlib.import_module(name)
    page = pages[f"api/{name}.html"]
    for public in getattr(module, "__all__", []):
        thing = getattr(module, public)
        if (inspect.isclass(thing) or inspect.isfunction(thing)) and thing.__module__ == name:
            assert f"{name}.{public}" in page.ids, f"{name}.{public}"


def test_no_docstring_was_taken_for_markup_that_it_is_not(pages):
    assert {name for name, page in pages.items() if page.classes & {"problematic", "system-message"}} == set()
