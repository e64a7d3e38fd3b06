"""The executed notebooks as linked pages that open from a folder, without a network or a script, on a phone too.

python -m sobolev_utils.paper.gallery [--results FOLDER]

nbconvert does the conversion; the pages' templates and style are in `gallery_pages`.
"""

import argparse
import os
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import bleach
import nbformat
from bs4 import BeautifulSoup
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode
from pygments.formatters import HtmlFormatter
from traitlets.config import Config

from sobolev_utils.paper.artifacts import ArtifactError, results_folder
from sobolev_utils.paper.execution import WIDGET, ReproductionError
from sobolev_utils.paper.files import write_bytes
from sobolev_utils.paper.formulas import as_svg
from sobolev_utils.paper.records import asked, reason_to_run
from sobolev_utils.paper.reproduce import NOTEBOOKS, NUMBERED, as_run

__all__ = ["main", "write_gallery"]

PAGES = Path(__file__).with_name("gallery_pages")
TABLE_TAGS = "a b br caption code div em i p pre span strong sub sup table tbody td tfoot th thead tr".split()
SHOWN = ["text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/plain"]  # richest first
THEMES = {"light": "default", "dark": "github-dark"}


class Prose(IPythonRenderer):
    """Markdown to HTML: formulas drawn, HTML shown as text, links to notebooks made links to their pages.

    pages: the stems that have a page; folder: that of the notebooks; root: that of the pages.
    """

    def __init__(self, pages: Sequence[str], folder: Path, root: Path):
        super().__init__(escape=True, allow_harmful_protocols=False, exclude_anchor_links=True)
        self.pages, self.folder, self.root = pages, folder, root

    def block_math(self, body: str) -> str:
        return f'<span class="display">{self._drawn(body, display=True)}</span>'

    def inline_math(self, body: str) -> str:
        return self._drawn(body, display=False)

    def latex_environment(self, name: str, body: str) -> str:
        return self.block_math(rf"\begin{{{name}}}{body}\end{{{name}}}")

    def link(self, text: str, url: str, title: str | None = None) -> str:
        return super().link(text, self._placed(url), title)

    def image(self, text: str, url: str, title: str | None = None) -> str:
        return super().image(text, self._placed(url), title)

    def _placed(self, url: str) -> str:
        """A link from the folder of the notebooks as one from that of the pages."""
        place = urlsplit(url)
        if place.scheme or place.netloc or not place.path:
            return url
        stem = place.path.removesuffix(".ipynb")
        beside = Path(os.path.relpath(self.folder / unquote(place.path), self.root))
        return place._replace(path=f"{stem}.html" if stem in self.pages else quote(beside.as_posix())).geturl()

    @staticmethod
    def _drawn(tex: str, display: bool) -> str:
        try:
            return as_svg(tex, display=display)
        except ValueError:
            return f"<code>{escape(tex)}</code>"  # better TeX than no page


def clean_html(html: str) -> str:
    """The tables and the text of a cell's HTML, without styles, scripts, images and whatever else loads or runs."""
    soup = BeautifulSoup(html, "html.parser")
    for element in soup(["style", "script"]):
        element.decompose()
    return bleach.clean(str(soup), TABLE_TAGS, {"*": ["colspan", "rowspan"], "a": ["href"]}, strip=True)


def write_gallery(results: Path, notebooks: Path = NOTEBOOKS) -> Path:
    """Write `<results>/html`, an index and a page for each of `notebooks`; return the index. Same input, same bytes.

    A page shows the copy executed in `<results>/notebooks`, and why it would be made anew if it would; or, where
    there is none or the notebook was edited since, the notebook with its own outputs; the index their figures and the
    table of R^2. What else was in the folder is removed. Raises FileNotFoundError where there is no notebook,
    ValueError where one is damaged.
    """
    root, stems = Path(results) / "html", sorted(path.stem for path in notebooks.glob(NUMBERED))
    if not stems:
        raise FileNotFoundError(f"no notebook named like 01_name.ipynb in {notebooks}")
    prose = Prose(stems, notebooks, root)
    figures = {path.stem: path for path in sorted((Path(results) / "figures").glob("*.png"))}
    files = {f"figures/{path.name}": path.read_bytes() for path in figures.values()}
    entries = []
    for stem in stems:
        notebook, copy = notebooks / f"{stem}.ipynb", Path(results) / "notebooks" / f"{stem}.ipynb"
        shown, older = _read(notebook), ""
        if copy.is_file() and _story(executed := _read(copy)) == _story(shown):
            defaults = as_run([notebook], {})[stem]
            shown, older = executed, reason_to_run(notebook, Path(results), asked(notebook, defaults))
        entry, images = _converted(shown, stem, prose, figures)
        entries.append(entry | {"older": older})
        files |= images
    template = Environment(loader=FileSystemLoader(PAGES), autoescape=True, undefined=StrictUndefined).get_template
    for previous, entry, following in zip([None, *entries], entries, [*entries[1:], None], strict=False):
        page = template("notebook.html.j2").render(entry, previous=previous, following=following)
        files[entry["page"]] = page.encode()
    table = Path(results) / "tables" / "r2_table.md"
    index = {
        "entries": entries,
        "others": sorted(set(figures).difference(*(entry["figures"] for entry in entries))),
        "table": _rendered(table.read_text(), prose) if table.is_file() else "",
    }
    files["index.html"] = template("index.html.j2").render(index).encode()
    files["style.css"] = _style()
    for name, data in files.items():
        write_bytes(root / name, data)
    for path in root.rglob("*"):
        if path.is_file() and path.relative_to(root).as_posix() not in files:
            path.unlink()
    return root / "index.html"


def _read(path: Path) -> NotebookNode:
    try:
        return nbformat.read(path, as_version=4)
    except (ValueError, nbformat.ValidationError) as error:
        raise ValueError(f"{path} is not a notebook: run it again, or remove it") from error


def _story(notebook: NotebookNode) -> list[tuple[str, str]]:
    """Kind and source of each cell, but for the parameters that papermill put in."""
    written = [cell for cell in notebook.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    return [(cell.cell_type, cell.source) for cell in written]


def _converted(
    notebook: NotebookNode, stem: str, prose: Prose, figures: Collection[str]
) -> tuple[dict[str, object], dict[str, bytes]]:
    """What the templates show of a notebook, and its images by their path in the gallery."""
    notebook.metadata.pop("widgets", None)
    saved = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if _can_be_shown(output.get("data"))]
            names = re.findall(r'save_figure\(\w+, "(\w+)"', cell.source)
            cell.metadata["figures"] = names
            saved += [name for name in names if name in figures]
    head = "".join(cell.source for cell in notebook.cells[:1])
    title = head.partition("\n")[0].lstrip("# ") or stem
    aim = re.search(r"\*\*Aim\.\*\*\s*(.*?)(?:\n\s*\n|\Z)", head, re.DOTALL)
    exporter = HTMLExporter(
        template_file=str(PAGES / "cells.html.j2"),
        config=Config(NbConvertBase={"display_data_priority": SHOWN}, ExtractOutputPreprocessor={"enabled": True}),
        filters={"markdown2html": lambda text: _rendered(text, prose), "clean_html": clean_html},
    )
    cells, made = exporter.from_notebook_node(notebook, {"output_files_dir": stem, "unique_key": "cell"})
    entry = {
        "page": f"{stem}.html",
        "title": title,
        "aim": _rendered(aim[1], prose) if aim else "",
        "figures": saved,
        "cells": Markup(cells),
    }
    return entry, {Path(name).as_posix(): data for name, data in made["outputs"].items()}


def _can_be_shown(data: Mapping[str, str] | None) -> bool:
    """Whether an output has no data, only text, or data in a form that a page can show without a kernel."""
    return data is None or (WIDGET not in data and not data.keys().isdisjoint(SHOWN))


def _rendered(markdown: str, prose: Prose) -> Markup:
    """Markdown as HTML, in which no line begins with the comma that follows a formula."""
    html = MarkdownWithMath(renderer=prose).render(markdown)
    return Markup(re.sub(r"(\(?<svg[^>]*><path[^>]*></svg>[.,;:)]+)", r'<span class="whole">\1</span>', html))


def _style() -> bytes:
    """The style of the pages, and of the code in them by day and by night."""
    code = {theme: HtmlFormatter(style=style).get_style_defs(".highlight") for theme, style in THEMES.items()}
    by_theme = [f"@media (prefers-color-scheme: {theme}) {{\n{rules}\n}}" for theme, rules in code.items()]
    return "\n".join([*by_theme, (PAGES / "style.css").read_text()]).encode()


def main(arguments: Sequence[str] | None = None, *, notebooks: Path = NOTEBOOKS) -> int:
    """Write the gallery that the command line asks for; return 0, or 1 after one line on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m sobolev_utils.paper.gallery", description="Render the executed notebooks as linked pages."
    )
    parser.add_argument("--results", default="", metavar="FOLDER", help="what to show (default: results/)")
    try:
        index = write_gallery(results_folder(parser.parse_args(arguments).results), notebooks)
    except (ArtifactError, ReproductionError, OSError, ValueError) as error:
        print(f"gallery: {error}", file=sys.stderr)
        return 1
    print(f"open {index}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
