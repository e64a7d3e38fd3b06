"""The site: README, committed notebooks and docstrings as pages that open from a folder, without a network."""

import re
import shutil
import tomllib
from importlib.util import find_spec
from pathlib import Path

from docutils import nodes
from sphinx.util.inspect import signature, stringify_signature

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# of the ways in which it draws, the one that needs neither fonts nor other files
MATHJAX = Path(find_spec("sphinx-mathjax-offline").origin).parent / "static" / "mathjax" / "tex-svg.js"

project, version = PROJECT["name"], PROJECT["version"]
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.mathjax"]
templates_path = ["_templates"]
highlight_language = "text"
smartquotes = False

nb_execution_mode = "off"
nb_ipywidgets_js = {}  # a slider needs a kernel
myst_enable_extensions = ["dollarmath", "amsmath"]
mathjax_path = MATHJAX.name

autosummary_ignore_module_all = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
add_module_names = False
python_maximum_signature_line_length = 60
python_use_unqualified_type_names = True
default_role = "py:obj"

html_theme = "sphinx_book_theme"
html_title = "Towards Sobolev Pruning"
html_static_path = ["site.css", str(MATHJAX)]
html_css_files = ["site.css"]
html_context = {"default_mode": "auto"}
html_theme_options = {
    "use_download_button": False,
    "use_fullscreen_button": False,
    "navbar_persistent": [],
    "footer_content_items": "",
}
html_copy_source = html_use_index = html_domain_indices = False
html_show_search_summary = False  # a page from a file may not fetch others


def as_rst(app, what, name, thing, options, lines):
    """A docstring is plain text: indented blocks stand as they are, and only backticks mean something."""

    def plain(mark):
        return rf"\ {mark[0]}\ " if mark[1] else rf"\{mark[0]}"

    lines[:] = "\n\n".join(
        f"::\n\n{block}" if block.startswith(" ") else re.sub(r"(`[^`]*`)|[*|_\\]", plain, block)
        for block in re.split(r"\n\n+", "\n".join(lines).rstrip())
    ).split("\n")


def as_called(app, what, name, thing, options, arguments, returned):
    """The signature of a class whose metaclass hides it."""
    if what == "class" and type(thing) is not type and "__init__" in vars(thing):
        found = signature(thing.__init__, bound_method=True)
        return stringify_signature(found, show_return_annotation=False, unqualified_typehints=True), None


def from_here(app, path, document, content):
    """Links of the README as they are seen from this folder."""
    text = content[0].replace("](results/models/README.md)", "](models.md)")
    text = text.replace("](CONTRIBUTING.md)", "](contributing.md)")
    content[0] = re.sub(r"]\((?=results/|CITATION)", "](../", text)


def keep_with_comma(app, document):
    """No line begins with the comma that follows a formula."""
    for formula in list(document.findall(nodes.math)):
        following = formula.next_node(descend=False, siblings=True)
        if isinstance(following, nodes.Text) and (mark := re.match("[.,;:)]+", following)):
            formula.parent.replace(following, nodes.Text(following[mark.end() :]))
            whole = nodes.inline("", "", formula.deepcopy(), nodes.Text(mark[0]), classes=["whole"])
            formula.parent.replace(formula, whole)


def setup(app):
    for made in ("api", "notebooks"):
        shutil.rmtree(HERE / made, ignore_errors=True)
    shutil.copytree(ROOT / "notebooks", HERE / "notebooks", ignore=shutil.ignore_patterns(".*"))
    app.connect("autodoc-process-docstring", as_rst)
    app.connect("autodoc-process-signature", as_called)
    app.connect("include-read", from_here)
    app.connect("doctree-read", keep_with_comma)
