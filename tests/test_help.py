"""Help where people look: papermill's list of parameters, the docstrings as Lab's inspector shows them."""

import ast
import errno
import importlib
import inspect
import os
import pkgutil
import re
from importlib.util import find_spec
from pathlib import Path

import papermill
import pytest
from jupyter_client.manager import start_new_kernel
from nbclient.exceptions import DeadKernelError

import sobolev_utils
from sobolev_utils.paper.execution import read_parameters

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MODULES = [module.name for module in pkgutil.walk_packages(sobolev_utils.__path__, "sobolev_utils.")]
LATEX = re.compile(r"\\[a-zA-Z(\[]|\$[^$A-Z]|:math:")
ANSI = re.compile(r"\x1b\[[\d;]*m")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_papermill_lists_every_parameter_with_type_default_and_comment(path):
    listed = papermill.inspect_notebook(str(path))
    assert listed.keys() == read_parameters(path).keys() and "results" in listed
    for parameter in listed.values():
        assert parameter["inferred_type_name"] != "None", parameter
        assert parameter["default"] and len(parameter["help"].split()) > 1, parameter


def public(module):
    """The functions and classes that a module offers."""
    module = importlib.import_module(module)
    named = {name: getattr(module, name) for name in module.__all__}
    return {name: thing for name, thing in named.items() if inspect.isfunction(thing) or inspect.isclass(thing)}


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_says_first_what_it_is_in_plain_text(module):
    assert inspect.getdoc(importlib.import_module(module)), module
    for name, thing in public(module).items():
        told = inspect.getdoc(thing) or ""
        assert thing.__doc__ and not told.startswith(f"{name}("), f"{name} has no docstring"
        claim = told.partition("\n\n")[0]
        assert claim[-1] in ".:)" and len(claim.splitlines()) <= 2, f"{name}: {claim}"
        assert not LATEX.search(told), f"{name} shows markup: {LATEX.search(told)}"
        assert max(map(len, told.splitlines())) <= 118, name


def test_the_inspector_shows_signature_and_docstring():
    """What Lab's contextual help and Shift-Tab ask the kernel, for names as a notebook has them."""
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        for module, name in [
            ("learning", "fit"),
            ("enclosures", "enclose"),
            ("pruning", "analyse"),
            ("learning", "Surrogate"),
            ("models", "GaussianBasket"),
        ]:
            client.execute(f"from sobolev_utils.{module} import {name}", reply=True, timeout=60)
            line = f"{name}("
            shown = client.inspect(line, len(line), reply=True, timeout=60)["content"]
            assert shown["found"], name
            text = ANSI.sub("", shown["data"]["text/plain"])
            thing = getattr(importlib.import_module(f"sobolev_utils.{module}"), name)
            assert text.startswith(("Signature:", "Init signature:"))
            assert inspect.getdoc(thing).partition("\n")[0] in text
            assert next(iter(inspect.signature(thing).parameters)) in text
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def templates():
    """What the package, the Makefile, the tests, pip, nbval and the system can say, with "..." for what is put in."""
    installed = {"pip": "_internal/index/package_finder.py", "nbval": "plugin.py", "nbclient": "client.py"}
    places = [Path(find_spec(name).origin).parent / file for name, file in installed.items()]
    places.append(ROOT / "tests" / "lab" / "conftest.py")
    for file in [*(ROOT / "sobolev_utils").rglob("*.py"), *places]:
        tree = ast.parse(file.read_text())
        notes = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                yield "".join(part.value if isinstance(part, ast.Constant) else "..." for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in notes:
                yield node.value
    yield from (ROOT / "Makefile").read_text().splitlines()
    yield from (os.strerror(code) for code in (errno.ENOSPC, errno.EROFS))
    yield DeadKernelError.__name__


SECTION = (ROOT / "README.md").read_text().partition("## When something goes wrong")[2].partition("\n## ")[0]
SYMPTOMS = [row.split("|")[1] for row in SECTION.splitlines() if row.startswith("| ")][1:]


@pytest.mark.parametrize("symptom", SYMPTOMS)
def test_the_readme_quotes_messages_as_they_are_given(symptom):
    said, quoted = list(templates()), re.findall("`(.+?)`", symptom)
    for part in (part for text in quoted if not text.startswith("make ") for part in text.split(": ")):
        words = re.compile(".*".join(re.escape(words.strip()) for words in part.split("...")))
        assert any(words.search(template) for template in said), f"nothing says {part!r}"
    assert quoted
