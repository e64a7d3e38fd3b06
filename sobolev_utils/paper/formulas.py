"""TeX as drawings in a page: no script, font or network is needed to show them; matplotlib's mathtext sets them."""

import re
from collections.abc import Iterator
from html import escape

from matplotlib.font_manager import FontProperties
from matplotlib.path import Path as Outline
from matplotlib.textpath import TextPath, text_to_path

__all__ = ["as_svg"]

EM = 1000  # units of a drawing
FONT = FontProperties(math_fontfamily="stix", size=EM)
COMMANDS = {
    Outline.MOVETO: "M",
    Outline.LINETO: "L",
    Outline.CURVE3: "Q",
    Outline.CURVE4: "C",
    Outline.CLOSEPOLY: "Z",
}

# What TeX allows and mathtext does not: sized delimiters, arguments without braces, some names; and some spaces.
DIALECT = (
    (r"\\[bB]igg?[lrm]?(?![a-zA-Z])\s*", ""),
    (r"\\(mathbb|mathcal|mathbf|mathrm|sqrt|bar|hat|tilde)\s*(\\[a-zA-Z]+|\w)", r"\\\1{\2}"),
    (r"\\tfrac", r"\\frac"),
    (r"\\(d?)frac\s*(\d)\s*(\d)", r"\\\1frac{\2}{\3}"),
    (r"\\(le|ge|ne)(?![a-zA-Z])", r"\\\1q"),
    (r"\\[lr]Vert(?![a-zA-Z])", r"\\|"),
    (r"\\[lr]vert(?![a-zA-Z])", "|"),
    (r"\\square(?![a-zA-Z])", "\N{WHITE SQUARE}"),
    (r"\\(sum|int)((?:[_^](?:\{[^{}]*\}|\w))*)", r"\\\1\2\\,"),
    (r"\^(\\top|[*+])", r"^{\\!\1}"),
)


def as_svg(tex: str, *, display: bool = False) -> str:
    """The formula `tex`, without its dollars, as inline SVG: it scales with the text around it and takes its colour.

    One on display is a drawing for each part that a quad or qquad sets apart, so that a narrow page can break there.
    Raises ValueError, with the formula, where mathtext cannot set it.
    """
    parts = re.split(r"\\q?quad(?![a-zA-Z])", tex) if display else [tex]
    return " ".join(_drawing(" ".join(part.split()), display) for part in parts)


def _drawing(tex: str, display: bool) -> str:
    math = "".join(_fractions_on_display(tex)) if display else tex
    for pattern, replacement in DIALECT:
        math = re.sub(pattern, replacement, math)
    try:
        width, height, depth = text_to_path.get_text_width_height_descent(f"${math}$", FONT, ismath=True)
        outline = TextPath((0, 0), f"${math}$", prop=FONT)
    except ValueError as error:
        raise ValueError(f"cannot set the formula {tex!r}: {error}") from error
    strokes = (
        COMMANDS[code] + ("" if code == Outline.CLOSEPOLY else " ".join(f"{value:.0f}" for value in points))
        for points, code in outline.iter_segments(simplify=False)
    )
    box = f"0 {depth - height:.0f} {width:.0f} {height:.0f}"
    size = f"width:{width / EM:.3f}em;height:{height / EM:.3f}em;vertical-align:{-depth / EM:.3f}em"
    return (
        f'<svg role="img" aria-label="{escape(tex)}" viewBox="{box}" style="{size}">'
        f'<path transform="scale(1 -1)" d="{"".join(strokes)}"/></svg>'
    )


def _fractions_on_display(tex: str) -> Iterator[str]:
    """The pieces of `tex`, where a fraction outside all braces is a large one."""
    level = 0
    for piece in re.split(r"(\\frac|\\?[{}])", tex):
        level += (piece == "{") - (piece == "}")
        yield r"\dfrac" if piece == r"\frac" and level == 0 else piece
