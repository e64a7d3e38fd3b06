"""Every notebook keeps the form: head, parameters cell, short cells run in order, no machine's traces."""

import ast
import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
HEAD = ("Aim", "Reads", "Writes", "Run time", "Place in the paper")
LONGEST_CELL = 25  # lines
TRACES = re.compile(r"""\b0x[0-9a-f]{4,}|(?:^|[\s"'(=\[])(?:/[\w.-]+/[\w./-]+|~/|[A-Z]:\\)""", re.MULTILINE)


def tags(cell):
    return cell.metadata.get("tags", [])


def faults_of_parameters(source):
    """What keeps a parameters cell from being typed literals with a comment each."""
    lines = source.splitlines()
    for node in ast.parse(source).body:
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value):
            yield f"parameter not written as `name: type = literal`: {ast.unparse(node)}"
            continue
        try:
            ast.literal_eval(node.value)
        except ValueError:
            yield f"parameter not a literal: {ast.unparse(node)}"
        if "#" not in lines[node.end_lineno - 1][node.end_col_offset :]:
            yield f"parameter without a comment: {ast.unparse(node)}"


def texts_of(outputs):
    """All that a reader sees as text: streams, reprs, HTML, Markdown."""
    for output in outputs:
        yield output.get("text", "")
        yield from (data for kind, data in output.get("data", {}).items() if kind.startswith("text/"))


def faults_of_outputs(number, cell):
    if any(output.output_type == "error" for output in cell.outputs):
        yield f"In [{number}] ended in an error"
    for text in texts_of(cell.outputs):
        if trace := TRACES.search(text):
            yield f"In [{number}] shows an address or an absolute path: {trace.group().strip()}"


def faults_of(notebook):
    """What is wrong with the form of a notebook, a line each; nothing for a good one."""
    cells = notebook.cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    if not cells or cells[0].cell_type != "markdown":
        yield "the first cell is not markdown"
    else:
        yield from (f"the head lacks {word!r}" for word in HEAD if word not in cells[0].source)
    tagged = [cell for cell in code if "parameters" in tags(cell)]
    if len(tagged) != 1:
        yield f"{len(tagged)} cells are tagged `parameters`, expected 1"
    for cell in tagged:
        yield from faults_of_parameters(cell.source)
    counts = [cell.execution_count for cell in code]
    if counts != list(range(1, len(code) + 1)):
        yield f"execution counts are {counts}, expected 1 to {len(code)} in order"
    for number, cell in enumerate(cells, start=1):
        if (length := len(cell.source.splitlines())) > LONGEST_CELL:
            yield f"cell {number} has {length} lines, expected {LONGEST_CELL} or fewer"
    for number, (cell, following) in enumerate(zip(code, [*code[1:], None], strict=True), start=1):
        yield from faults_of_outputs(number, cell)
        if "nbval-skip" in tags(cell) or re.search("#.*NBVAL_", cell.source):
            yield f"In [{number}] hides from nbval by something else than the tag nbval-ignore-output"
        unseen = "nbval-ignore-output" in tags(cell)
        if unseen and not (following and re.search(r"^\s*assert\b", following.source, re.MULTILINE)):
            yield f"In [{number}] is tagged nbval-ignore-output, but the next code cell asserts nothing"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_form(path):
    assert list(faults_of(nbformat.read(path, as_version=4))) == []


def code_cell(source, count, *outputs, tag=None):
    metadata = {"tags": [tag]} if tag else {}
    return new_code_cell(source, execution_count=count, outputs=list(outputs), metadata=metadata)


def good_notebook():
    return new_notebook(
        cells=[
            new_markdown_cell("# Title\n" + "\n".join(f"**{word}:** words" for word in HEAD)),
            code_cell('name: str = "a # b"  # kind\nwidths: tuple = (-1, 2)  # of layers', 1, tag="parameters"),
            code_cell("fit()", 2, new_output("stream", text="10 s"), tag="nbval-ignore-output"),
            new_markdown_cell("Small enough?"),
            code_cell("assert loss < 1, loss", 3),
            code_cell("figure", 4, new_output("display_data", data={"image/png": "/a/b+0xffff"})),
            code_cell(
                "ratio",
                5,
                new_output("stream", text="values / deltas 1/2/3, results/figures/a.png, <b>/</b>"),
            ),
        ]
    )


def test_a_good_notebook_has_no_faults():
    assert list(faults_of(good_notebook())) == []


def change(cell, **changes):
    return lambda notebook: notebook.cells[cell].update(changes)


def text(mime, data):
    return [new_output("display_data", data={mime: data})]


BAD = {
    "the first cell is not markdown": lambda notebook: notebook.cells.pop(0),
    "the head lacks 'Run time'": change(0, source="Aim Reads Writes Runtime Place in the paper"),
    "0 cells are tagged `parameters`": change(1, metadata={}),
    "2 cells are tagged `parameters`": change(4, metadata={"tags": ["parameters"]}),
    "not written as `name: type = literal`: a = 1": change(1, source="a = 1  # one"),
    "not written as `name: type = literal`: b: int": change(1, source="b: int  # none"),
    "not a literal: c: int = 6 * 7": change(1, source="c: int = 6 * 7  # product"),
    "without a comment: d: str = '#'": change(1, source="d: str = '#'"),
    "execution counts are [1, 2, None, 4, 5]": change(4, execution_count=None),
    "execution counts are [1, 2, 7, 4, 5]": change(4, execution_count=7),
    "cell 5 has 26 lines": change(4, source="assert True\n" * 26),
    "In [3] ended in an error": change(4, outputs=[new_output("error", ename="E", evalue="", traceback=[])]),
    "absolute path: /home/me": change(4, outputs=[new_output("stream", text="saved in\n/home/me/a.png")]),
    "absolute path: '/tmp/x": change(4, outputs=text("text/plain", "PosixPath('/tmp/x')")),
    'absolute path: "C:\\': change(4, outputs=text("text/html", '<a href="C:\\x">')),
    "an address or an absolute path: 0x7f84": change(4, outputs=text("text/plain", "<Line at 0x7f8458462e90>")),
    "hides from nbval": change(4, source="# NBVAL_IGNORE_OUTPUT\nassert True"),
    "In [2] is tagged nbval-ignore-output": change(4, source="print('assert')"),
    "In [5] is tagged nbval-ignore-output": change(6, metadata={"tags": ["nbval-ignore-output"]}),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_fault_of_form_is_found(fault):
    notebook = good_notebook()
    BAD[fault](notebook)
    assert any(fault in found for found in faults_of(notebook)), list(faults_of(notebook))
