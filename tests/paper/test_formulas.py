"""Formulas: TeX's ways to write one draw the same, within its box; what cannot be set is told."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from sobolev_utils.paper.formulas import as_svg


def drawings(tex, **options):
    """The view box and the outline of each drawing."""
    return [
        (tuple(map(float, svg.get("viewBox").split())), svg.find("path").get("d"))
        for svg in ET.fromstring(f"<p>{as_svg(tex, **options)}</p>").iter("svg")
    ]


@pytest.mark.parametrize(
    "written, braced",
    [
        (r"\mathbb E\,x", r"\mathbb{E}\,x"),
        (r"\mathbf 1^\top x", r"\mathbf{1}^{\!\top} x"),
        (r"\sigma\sqrt\tau", r"\sigma\sqrt{\tau}"),
        (r"\tfrac12 x", r"\frac{1}{2} x"),
        (r"-\frac12\,\tfrac{a}{b}", r"-\frac{1}{2}\,\frac{a}{b}"),
        (r"x \le y", r"x \leq y"),
        (r"x \leftarrow y", r"x\leftarrow y"),
        (r"\big\|x\big\|", r"\|x\|"),
        (r"\lVert x\rVert", r"\|x\|"),
        (r"\Bigl[x\Bigr]", "[x]"),
        ("a\n  + b", "a + b"),
    ],
)
def test_what_tex_allows_is_what_mathtext_sets(written, braced):
    assert drawings(written) == drawings(braced)


@pytest.mark.parametrize("tex", ["x", r"\frac{a_g}{b^2}", r"\sum_{i=1}^n w_i S_i", r"\int_0^1 f(t)\,dt", "(y)^2"])
def test_the_ink_is_in_the_box(tex):
    (((left, top, width, height), outline),) = drawings(tex)
    x, y = np.array(re.findall(r"(-?\d+) (-?\d+)", outline), float).T
    slack = 60  # thousandths of an em, by which italics lean out
    assert left - slack <= x.min() and x.max() <= left + width + slack
    assert top - slack <= -y.max() and -y.min() <= top + height + slack


def test_on_display_outer_fractions_are_large_and_parts_stand_alone():
    def height(tex, **options):
        return drawings(tex, **options)[0][0][3]

    assert height(r"\frac{a}{b}", display=True) > 1.3 * height(r"\frac{a}{b}")
    assert height(r"x^{\frac{a}{b}}", display=True) == height(r"x^{\frac{a}{b}}")
    assert drawings(r"a,\qquad b\quad c", display=True) == drawings("a,") + drawings("b") + drawings("c")


def test_a_reader_of_screens_gets_the_tex():
    (svg,) = ET.fromstring(f"<p>{as_svg('a < b')}</p>").iter("svg")
    assert (svg.get("role"), svg.get("aria-label")) == ("img", "a < b")


@pytest.mark.parametrize("tex", [r"\nope{x}", r"\frac{1}{", r"\begin{cases} a \\ b \end{cases}"])
def test_what_cannot_be_set_is_told(tex):
    with pytest.raises(ValueError, match="cannot set the formula") as told:
        as_svg(tex)
    assert repr(tex) in str(told.value)
