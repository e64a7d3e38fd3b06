"""The gallery is whole: links lead to files, nothing is loaded from outside, nothing runs, and it reads well."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from markupsafe import escape
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output, new_raw_cell
from stubs import write_notebook

from sobolev_utils.paper.gallery import main, write_gallery
from sobolev_utils.paper.reproduce import main as reproduce

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


class Page(HTMLParser):
    """What a page refers to and holds."""

    def __init__(self, path):
        super().__init__()
        self.path, self.links, self.loads, self.ids, self.labels, self.tags = path, [], [], set(), [], set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags.add(tag)
        self.ids.add(given.get("id"))
        if tag == "svg":
            self.labels.append(given["aria-label"])
        if tag == "a":
            self.links.append(given["href"])
        self.loads += [given[name] for name in ("src", "srcset", "data", "poster") if name in given]
        if tag == "link":
            self.loads.append(given["href"])
        assert not any(name.startswith("on") for name in given), given


@pytest.fixture(scope="module")
def pages(gallery):
    return {path.name: Page(path) for path in sorted(gallery.glob("*.html"))}


def test_every_notebook_and_figure_and_number_is_in_the_index(gallery, pages):
    index = (gallery / "index.html").read_text()
    for path in NOTEBOOKS:
        title = nbformat.read(path, as_version=4).cells[0].source.partition("\n")[0].removeprefix("# ")
        assert f"{path.stem}.html" in pages["index.html"].links and escape(title) in index
    for path in (ROOT / "results" / "figures").glob("*.png"):
        assert f"figures/{path.name}" in pages["index.html"].loads
    numbers = re.findall(r"-?\d\.\d+", (ROOT / "results" / "tables" / "r2_table.md").read_text())
    assert len(numbers) == 48
    assert [number for number in numbers if f">{number}<" not in index] == []


def test_the_pages_stand_in_a_row(pages):
    stems = [path.stem for path in NOTEBOOKS]
    for before, stem, after in zip([None, *stems], stems, [*stems[1:], None], strict=False):
        links = set(pages[f"{stem}.html"].links)
        assert {"index.html", *(f"{other}.html" for other in (before, after) if other)} <= links


def test_every_link_and_image_is_a_file(pages):
    followed = 0
    for page in pages.values():
        for url in page.links + page.loads:
            place = urlsplit(url)
            if place.scheme:
                continue
            target = (page.path.parent / unquote(place.path)).resolve() if place.path else page.path
            assert target.is_file(), f"{page.path.name}: {url}"
            assert not place.fragment or place.fragment in pages[target.name].ids, f"{page.path.name}: {url}"
            followed += 1
    assert followed > 100


def test_nothing_is_loaded_from_outside_and_nothing_runs(gallery, pages):
    for page in pages.values():
        assert [url for url in page.loads if urlsplit(url).scheme or urlsplit(url).netloc] == []
        assert page.tags.isdisjoint({"script", "iframe", "object", "embed", "style", "form"})
        assert "default-src 'none'" in page.path.read_text()
    assert re.findall(r"url\(|@import|https?:", (gallery / "style.css").read_text()) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_formula_is_drawn(path, pages):
    labels = pages[f"{path.stem}.html"].labels
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            for display, inline in re.findall(r"\$\$(.+?)\$\$|\$([^$]+)\$", cell.source, re.DOTALL):
                parts = re.split(r"\\q?quad\b", display) if display else [inline]
                assert [part for part in parts if " ".join(part.split()) not in labels] == []


def test_the_same_notebooks_give_the_same_bytes_and_leave_nothing_else(gallery):
    def content():
        return {path.relative_to(gallery): path.read_bytes() for path in gallery.rglob("*") if path.is_file()}

    before = content()
    (gallery / "08_gone.html").write_text("of a notebook that is no more")
    write_gallery(gallery.parent)
    assert content() == before


def notebook(*cells):
    return new_notebook(cells=[new_markdown_cell("# 1. A title\n\n**Aim.** An aim.\n\nMore."), *cells])


@pytest.fixture
def one_page(tmp_path):
    """A way to make the page of one notebook, from what it holds and what its executed copy holds."""

    def make(*cells, executed=None):
        for folder, content in (("notebooks", cells), ("results/notebooks", executed)):
            if content is not None:
                (tmp_path / folder).mkdir(parents=True, exist_ok=True)
                nbformat.write(notebook(*content), tmp_path / folder / "01_a.ipynb")
        write_gallery(tmp_path / "results", tmp_path / "notebooks")
        return Page(tmp_path / "results" / "html" / "01_a.html")

    return make


def printing(text, source="print(x)"):
    return new_code_cell(source, outputs=[new_output("stream", text=text)])


def test_a_page_shows_what_ran_here_rather_than_what_was_committed(one_page):
    assert "as committed" in one_page(printing("as committed")).path.read_text()
    injected = new_code_cell("x = 7", metadata={"tags": ["injected-parameters"]})
    text = one_page(printing("as committed"), executed=[injected, printing("as run")]).path.read_text()
    assert "as run" in text and "as committed" not in text


def test_a_run_that_would_be_made_anew_says_why(tmp_path):
    """On its page and in the index; one that is up to date says nothing."""
    notebooks, results = tmp_path / "notebooks", tmp_path / "results"
    write_notebook(notebooks, "01_a", "1")
    write_notebook(results / "notebooks", "01_a", "1")

    def said():
        write_gallery(results, notebooks)
        pages = ((results / "html" / f"{name}.html").read_text() for name in ("01_a", "index"))
        return [re.findall(r"Of an earlier run[^<]*(?:<code>.*</code>)?[^<]*", page) for page in pages]

    why = "no record of a run."
    page, index = said()
    assert page == [f"Of an earlier run, which <code>make reproduce</code> would make anew: {why}"]
    assert index == [f"Of an earlier run: {why}"]
    assert reproduce(["--results", str(results)], notebooks=notebooks) == 0
    assert said() == [[], []]


@pytest.mark.parametrize(
    "older", [[printing("as run", "print(y)")], [], [new_markdown_cell("So"), printing("as run")]]
)
def test_a_page_shows_an_edited_notebook_rather_than_an_older_run(one_page, older):
    text = one_page(printing("as committed"), executed=older).path.read_text()
    assert "as committed" in text and "as run" not in text


EVIL = '<script>alert("x")</script><img src="https://a.example/x.png" onerror="x()"><style>b{}</style>'


@pytest.mark.parametrize(
    "cell",
    [
        new_markdown_cell(EVIL),
        new_markdown_cell("[a](javascript:x) $\\text{" + EVIL + "}$ $$\\nope " + EVIL + "$$"),
        new_raw_cell(EVIL),
        new_code_cell(EVIL, execution_count=1),
        *(
            new_code_cell("", outputs=[output])
            for output in (
                new_output("stream", text=EVIL),
                new_output("error", ename=EVIL, evalue=EVIL, traceback=[EVIL]),
                *(
                    new_output("display_data", data={kind: EVIL} | extra)
                    for extra in ({}, {"text/plain": EVIL})
                    for kind in ("text/html", "text/markdown", "text/latex", "text/plain", "image/svg+xml",
                                 "application/javascript", "application/vnd.jupyter.widget-view+json")
                ),
            )
        ),
    ],
)  # fmt: skip
def test_what_a_notebook_holds_cannot_run_or_load(one_page, cell):
    page = one_page(cell)
    assert page.tags.isdisjoint({"script", "style"})
    assert [url for url in page.loads + page.links if urlsplit(url).scheme] in ([], ["#harmful-link"])
    assert [url for url in page.loads if not (page.path.parent / unquote(url)).is_file()] == []


def test_tables_keep_their_cells_and_figures_their_name(one_page):
    table = '<style scoped>td {}</style><table border="1"><tr><td colspan="2">0.5</td></tr></table>'
    page = one_page(
        new_code_cell("table", outputs=[new_output("execute_result", data={"text/html": table})]),
        new_code_cell(
            'save_figure(folder, "seed_spread", figure), save_figure(folder, "b", figure)',
            outputs=[new_output("display_data", data={"image/png": "AAAA", "text/plain": "<Figure>"})],
        ),
    )
    text = page.path.read_text()
    assert '<td colspan="2">0.5</td>' in text and "td {}" not in text
    assert (
        {"figure-seed_spread", "figure-b"} <= page.ids and 'alt="seed spread, b"' in text and "&lt;Figure" not in text
    )


def test_a_formula_that_cannot_be_drawn_is_shown_as_tex(one_page):
    page = one_page(new_markdown_cell("With $\\nope a<b$:\n\n\\begin{align}x&=1\\end{align}"))
    assert page.labels == []
    assert "<code>\\nope a&lt;b</code>" in page.path.read_text()
    assert "<code>\\begin{align}x&amp;=1\\end{align}</code>" in page.path.read_text()


def test_a_link_to_another_file_still_leads_there(one_page, tmp_path):
    (tmp_path / "a card.md").touch()
    page = one_page(new_markdown_cell("[card](../a%20card.md) [self](01_a.ipynb#top) ![card](<../a card.md>)"))
    _, card, own, _ = page.links
    assert own == "01_a.html#top"
    assert (page.path.parent / unquote(card)).resolve() == tmp_path / "a card.md"
    assert page.loads[-1] == card


def test_the_command_line_says_what_to_open_or_what_is_wrong(one_page, tmp_path, capsys):
    one_page(executed=[])
    results, notebooks = tmp_path / "results", tmp_path / "notebooks"
    assert main(["--results", str(results)], notebooks=notebooks) == 0
    assert capsys.readouterr().out == f"open {results / 'html' / 'index.html'}\n"
    copy = results / "notebooks" / "01_a.ipynb"
    copy.write_text("{")
    assert main(["--results", str(results)], notebooks=notebooks) == 1
    assert capsys.readouterr().err == f"gallery: {copy} is not a notebook: run it again, or remove it\n"


def test_a_folder_without_notebooks_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="no notebook named like 01_name"):
        write_gallery(tmp_path, tmp_path)
