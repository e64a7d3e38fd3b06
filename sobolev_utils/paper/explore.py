"""A surrogate beside the closed form, under sliders: any spots, any strike, any volatility."""

import io
from base64 import b64encode
from collections.abc import Mapping, Sequence

import ipywidgets as widgets
import numpy as np
import pandas as pd
from flax import nnx
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from sobolev_utils.learning.surrogate import Surrogate
from sobolev_utils.models.basket import GaussianBasket
from sobolev_utils.models.scaling import equivalent, moved, sensitivities, transported

__all__ = ["LEVELS", "Explorer"]

LEVELS = np.linspace(0.3, 1.7, 113)  # of the basket, along the curves
CONTRACT = {"strike": (0.8, 1.4), "volatility": (0.1, 0.4)}  # wider where the basket's own or the first lie outside
ERRORS = (1e-7, 1)  # what is smaller is float32's rounding


class Explorer:
    """Sliders for spots, strike, volatility and surrogate; price, delta and gamma over the basket, their errors
    below; and the numbers at the spots.

    surrogates: by name, of the price of `basket`; start: first values of `controls`, the sliders by name. A curve is
    dotted, and a note is shown, where the equivalent spots leave the basket's box. Without a kernel it is a picture.
    Raises ValueError for an unknown control, or a value that its slider cannot take.
    """

    def __init__(self, basket: GaussianBasket, surrogates: Mapping[str, Surrogate], **start: object):
        self.basket, self.surrogates = basket, dict(surrogates)
        sliders = {"level": (0.4, 1.6, 1.0)}
        for name, span in CONTRACT.items():
            own = getattr(basket, name)
            reached = *span, own, start.get(name, own)
            sliders[name] = min(reached), max(reached), own
        sliders |= {f"asset {i}": (-0.3, 0.3, 0.0) for i in range(1, basket.n_assets + 1)}
        self.controls = {"surrogate": widgets.Dropdown(options=list(self.surrogates), description="surrogate")}
        for name, (low, high, value) in sliders.items():
            options = {"min": low, "max": high, "step": 0.01, "readout_format": ".2f", "description": name}
            self.controls[name] = widgets.FloatSlider(value, **options)
        if unknown := sorted(start.keys() - self.controls.keys()):
            raise ValueError(f"no control {unknown}, expected some of {list(self.controls)}")
        for name, value in start.items():
            self.controls[name].value = value
            if (taken := self.controls[name].value) != value:
                raise ValueError(f"{name} = {value} is not within its slider, which takes {taken}")

        strike, volatility = self.controls["strike"], self.controls["volatility"]
        highest = moved(basket, strike.min, volatility.max).value(np.full(basket.n_assets, LEVELS[-1]))
        steepest = moved(basket, strike.min, volatility.min).deviation
        self.panels = Panels((1.05 * float(highest), 1.05, 1.05 / (np.sqrt(2 * np.pi) * steepest)))
        self._picture, self._numbers = widgets.Image(format="png"), widgets.HTML()
        self._sensitivities = nnx.jit(
            lambda model, *contract, spots: sensitivities(transported(model, basket, *contract), spots)
        )
        for surrogate in self.surrogates.values():  # compiled before the first change of a slider
            self.compare(surrogate)
        self.show()
        controls = list(self.controls.values())
        for control in controls:
            control.observe(lambda change: self.show(), names="value")
        n = len(controls) - basket.n_assets
        columns = widgets.HBox([widgets.VBox(controls[:n]), widgets.VBox(controls[n:])])
        self.widget = widgets.VBox([columns, self._picture, self._numbers])

    @property
    def spots(self) -> np.ndarray:
        """(n_assets,): the level, and what each asset has above it."""
        above = [control.value for name, control in self.controls.items() if name.startswith("asset")]
        return self.controls["level"].value + np.array(above)

    def compare(self, surrogate: Surrogate | None = None) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
        """A surrogate (None: the chosen one), the closed form, and where the box holds the equivalent spots, (m,).

        Both are price (m,), delta (m, n_assets) and gamma (m,): in row 0 at the spots, in the others with the basket
        at `LEVELS`, all assets shifted alike.
        """
        surrogate = surrogate or self.surrogates[self.controls["surrogate"].value]
        contract = self.controls["strike"].value, self.controls["volatility"].value
        level = self.spots @ self.basket.weights
        x = self.spots + np.r_[0, LEVELS - level][:, None]
        own = equivalent(self.basket, *contract, x)
        lower, upper = self.basket.box
        guess = self._sensitivities(surrogate, *contract, spots=x.astype(np.float32))
        reference = moved(self.basket, *contract)
        truth = reference.value(x), reference.delta(x), reference.gamma(x)
        inside = ((own >= lower) & (own <= upper)).all(axis=-1)
        return [np.asarray(a) for a in guess], [np.asarray(a) for a in truth], inside

    def table(self) -> pd.DataFrame:
        """Surrogate, closed form and error at the spots: price, delta 1'grad, gamma, and the delta of each asset."""
        rows = [(value[0], delta[0].sum(), gamma[0], *delta[0]) for value, delta, gamma in self._compared[:2]]
        quantities = ["price", "delta", "gamma", *(f"delta {i}" for i in range(1, self.basket.n_assets + 1))]
        frame = pd.DataFrame(rows, index=["surrogate", "closed form"], columns=quantities)
        frame.loc["error"] = frame.iloc[0] - frame.iloc[1]
        return frame

    def show(self) -> None:
        """Compute, draw, and write the numbers, for the controls as they are."""
        self._compared = guess, truth, inside = self.compare()
        level = self.spots @ self.basket.weights
        curves = [(value, delta.sum(axis=-1), gamma) for value, delta, gamma in (guess, truth)]
        self._picture.value = self.panels.draw(level, self.controls["strike"].value, *curves, inside)
        note = "" if inside[0] else " The equivalent spots are <b>outside the box</b>: no error was measured there."
        place = f"The basket is at {level:.4f}.{note}"
        self._numbers.value = self.table().map("{:.3g}".format).to_html(border=0, justify="left") + place

    def _repr_mimebundle_(self, **options: object) -> dict[str, object]:
        """The widget, and the picture for where there is no kernel behind it."""
        bundle, picture = self.widget._repr_mimebundle_(**options), b64encode(self._picture.value).decode()
        return bundle | {"text/plain": "sliders over a picture", "image/png": picture}


class Panels:
    """Price, delta and gamma over the basket, and the errors below, on axes of these `heights` that stay.

    Only the lines are drawn anew, in 3 ms; the whole figure would take 100 ms.
    """

    def __init__(self, heights: Sequence[float]):
        self.figure = Figure(figsize=(8.2, 4.4), dpi=100)
        self._canvas = FigureCanvasAgg(self.figure)
        rows = self.figure.subplots(2, 3, sharex=True, height_ratios=(1.6, 1))
        for axis, below, name, top in zip(*rows, ("price", "delta 1′∇V", "gamma 1′∇²V1"), heights, strict=True):
            axis.set(title=name, ylim=(-0.05 * top, top), xlim=LEVELS[[0, -1]])
            below.set(yscale="log", ylim=ERRORS, xlabel="basket")
        rows[1, 0].set_ylabel("|error|")
        styles = {
            "inside": {"color": "C0", "lw": 2.2, "alpha": 0.7, "label": "surrogate"},
            "outside": {"color": "C1", "lw": 1.6, "ls": ":", "label": "surrogate, outside the box"},
            "truth": {"color": "k", "lw": 0.9, "label": "closed form"},
            "strike": {"color": "0.6", "lw": 0.8, "ls": "--", "label": "strike"},
            "here": {"color": "C1", "marker": "o", "ms": 5, "lw": 0, "label": "here"},
        }
        self._lines = [
            {name: axis.plot([], [], animated=True, **style)[0] for name, style in styles.items()}
            for axis in rows.flat
        ]
        self.figure.legend(*rows[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=len(styles))
        self._canvas.draw()
        self.figure.set_layout_engine("none")  # laid out once
        self._still = self._canvas.copy_from_bbox(self.figure.bbox)

    def draw(self, level: float, strike: float, guess: Sequence, truth: Sequence, inside: np.ndarray) -> bytes:
        """The figure as PNG, with these lines. guess, truth: three of (m,), whose row 0 is at `level`."""
        for above, below, found, exact in zip(self._lines[:3], self._lines[3:], guess, truth, strict=True):
            above["truth"].set_data(LEVELS, exact[1:])
            for lines, line in ((above, found), (below, abs(found - exact))):
                lines["inside"].set_data(LEVELS, np.where(inside, line, np.nan)[1:])
                lines["outside"].set_data(LEVELS, np.where(inside, np.nan, line)[1:])
                lines["here"].set_data([level], line[:1])
                lines["strike"].set_data([strike, strike], lines["strike"].axes.get_ylim())
        self._canvas.restore_region(self._still)
        for line in (line for lines in self._lines for line in lines.values()):
            line.axes.draw_artist(line)
        buffer = io.BytesIO()
        picture = Image.fromarray(np.asarray(self._canvas.buffer_rgba())).convert("RGB")
        picture.save(buffer, format="png", compress_level=1)
        return buffer.getvalue()
