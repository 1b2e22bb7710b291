"""The widgets of one run: each shows what `Explored` computes, and nothing is computed here."""

from __future__ import annotations

import html
from collections.abc import Callable

from bokeh.events import Event, Pan, PointEvent, Tap
from bokeh.models import ColumnDataSource, HoverTool, InlineStyleSheet, Scatter
from bokeh.models.ui import UIElement
from bokeh.models.widgets import Button, Div, Select, Slider
from bokeh.plotting import figure
from torch import Tensor

from pyro_vae.contracts import Tensors
from pyro_vae.datasets.shown import facts_html
from pyro_vae.explorer.colours import colourings
from pyro_vae.explorer.explored import Explored
from pyro_vae.explorer.shown import shown_as
from pyro_vae.validation import InvalidInput, rows_of

__all__ = ["RunView"]

DRAWS = 100  # of q(z | x) on the map
DECODED, SENTENCES = 6, 3  # of them decoded, and of the prior's
SMALL, LARGE = 56, 128  # pixels

CSS = """
:host { font: 15px/1.45 system-ui, sans-serif; color: #1c2126; }
h2 { font-size: 1rem; margin: .6rem 0 .3rem; }
th { text-align: left; font-weight: 600; padding-right: .8rem; vertical-align: top; }
.row { display: flex; flex-wrap: wrap; gap: .5rem; }
.quiet { color: #59636e; }
"""
HOVER = """
<div style="max-width:26rem;white-space:normal">@shown{safe}
<div>datum $index &nbsp; @said{safe}</div></div>
"""
KEY = """<span class=quiet><b style="color:#000">&#9711;</b> z &nbsp;
<b style="color:#000">&#8226;</b> draws of q(z | x) &nbsp;
<b style="color:#d62728">&#8226;</b> NUTS &nbsp; <b style="color:#000">&times;</b> prior</span>"""
HELP = """<span class=quiet>Hover over a datum to see it, click it to choose it. Click the empty
map to decode that place; drag to walk.</span>"""

# What lies over the data on the map, and how it looks.
MARKS: dict[str, Callable[[], Scatter]] = {
    "prior": lambda: Scatter(marker="x", size=8, line_color="black"),
    "q": lambda: Scatter(size=3, fill_color="black", line_color=None, fill_alpha=0.5),
    "nuts": lambda: Scatter(size=4, fill_color="#d62728", line_color=None, fill_alpha=0.6),
    "z": lambda: Scatter(size=15, fill_color=None, line_color="black", line_width=2.5),
}


def _text(words: str = "") -> Div:
    """HTML of ours on the page."""
    sheet = InlineStyleSheet(css=CSS)
    return Div(text=words, stylesheets=[sheet], sizing_mode="stretch_width", disable_math=True)


def _place(event: Event) -> tuple[float, float] | None:
    """Where on the map something happened."""
    if not isinstance(event, PointEvent) or event.x is None or event.y is None:
        return None
    return event.x, event.y


class RunView:
    """The widgets of one run.

    Args:
        run: what they show.

    Attributes:
        sides: the widgets by their place on the page, in order.
        linked: other views, in which a datum is chosen that is chosen in this one.
    """

    def __init__(self, run: Explored):
        self.run, self.show = run, shown_as(run.data)
        self.linked: list[RunView] = []
        self.datum, self.z = 0, run.means[0]
        self.label: int | None = None
        self.times = 0  # that the prior was drawn from
        self.few = DECODED if run.data.vocabulary is None else SENTENCES
        self.is_moving = False
        self.colourings = colourings(run)
        self.points = self._points()
        self.marks = {name: ColumnDataSource({"x": [], "y": []}) for name in MARKS}
        self.key, self.here, self.of_datum, self.of_prior, self.of_nuts = (
            _text() for _ in range(5)
        )
        self.sliders = {d: self._slider(d) for d in run.active()}
        nuts = Button(label="Draw its posterior by NUTS", name="nuts")
        nuts.on_click(self._start_nuts)
        self.nuts = nuts
        prior = Button(label="Draw from the prior")
        prior.on_click(self._draw_prior)
        self.sides: dict[str, list[UIElement]] = {
            "left": [self._colour_select(), self.key, self._map(), _text(KEY + "<br>" + HELP)],
            "right": [
                _text("<h2>Decoded at z</h2>"),
                self.here,
                *self._label_select(),
            ],
            "sliders": list(self.sliders.values()),
            "below": [
                self.of_datum,
                nuts,
                self.of_nuts,
                prior,
                self.of_prior,
            ],
        }
        self._colour(next(iter(self.colourings)))
        self.choose(0)

    def _points(self) -> ColumnDataSource:
        run, count = self.run, len(self.run.data)
        facts = [run.facts(n) for n in range(count)]
        # Early releases of Bokeh 3 escape nothing in a tooltip.
        said = [html.escape(", ".join(list(each.values())[1:3])) for each in facts]
        shown = self.show(run.data.x, SMALL)
        x, y = run.points.T.tolist()
        return ColumnDataSource(
            {"x": x, "y": y, "said": said, "shown": shown, "colour": [""] * count}
        )

    def _map(self) -> figure:
        across, upwards = self.run.plane.names
        plot = figure(
            tools="wheel_zoom,reset",
            toolbar_location="above",
            sizing_mode="stretch_width",
            height=460,
            x_axis_label=across,
            y_axis_label=upwards,
        )
        plot.toolbar.logo = None
        dots = plot.scatter(
            "x", "y", source=self.points, color="colour", size=7, alpha=0.7, line_color=None
        )
        for name, look in MARKS.items():
            plot.add_glyph(self.marks[name], look())
        plot.add_tools(HoverTool(renderers=[dots], tooltips=HOVER))
        plot.on_event(Tap, self._tapped)
        plot.on_event(Pan, self._dragged)
        return plot

    def _slider(self, dimension: int) -> Slider:
        values = self.run.means[:, dimension]
        low, high = float(values.min()), float(values.max())
        margin = max(0.2 * (high - low), 0.5)
        slider = Slider(
            start=low - margin, end=high + margin, step=(high - low + 2 * margin) / 200,
            value=low, title=f"z[{dimension}]", sizing_mode="stretch_width", format="0.00",
        )  # fmt: skip
        slider.on_change("value", lambda _attr, _old, value: self._slid(dimension, value))
        return slider

    def _colour_select(self) -> Select:
        select = Select(title="Colour by", options=[*self.colourings], width=160)  # type: ignore[arg-type]
        select.value = next(iter(self.colourings))
        select.on_change("value", lambda _attr, _old, name: self._colour(name))
        return select

    def _label_select(self) -> list[Select]:
        """A choice of the label to decode under, of a program that takes labels."""
        count = self.run.num_classes
        if count is None:
            return []
        labels = ((str(c), self.run.label_name(c)) for c in range(count))
        select = Select(title="Label", value="", width=160, options=[("", "the datum's"), *labels])  # type: ignore[arg-type]
        select.on_change("value", lambda _attr, _old, label: self._relabel(label))
        return [select]

    def _colour(self, name: str) -> None:
        coloured = self.colourings[name]()
        self.points.data["colour"] = coloured.colours
        self.key.text = coloured.key

    def _relabel(self, label: str) -> None:
        self.label = int(label) if label else None
        self.move(self.z)

    def _tapped(self, event: Event) -> None:
        if (point := _place(event)) is None:
            return
        datum = self.run.datum_at(point)
        if datum is None:
            self.move(self.run.latent_at(point))
            return
        for view in (self, *self.linked):
            view.choose(datum)

    def _dragged(self, event: Event) -> None:
        if (point := _place(event)) is not None:
            self.move(self.run.latent_at(point, through=self.z))

    def _slid(self, dimension: int, value: float) -> None:
        if not self.is_moving:
            z = self.z.clone()
            z[dimension] = value
            self.move(z)

    def move(self, z: Tensor) -> None:
        """Go to a latent (D,), and decode it."""
        self.z = z
        self._mark("z", z[None])
        self.is_moving = True
        for dimension, slider in self.sliders.items():
            slider.value = min(max(float(z[dimension]), slider.start), slider.end)
        self.is_moving = False
        decoded = self.run.decode(z[None], self.datum, self.label)
        self.here.text = self.show(decoded, LARGE)[0]

    def choose(self, datum: int) -> None:
        """Choose a datum: show its numbers and its posterior, and go to its mean."""
        run, self.datum = self.run, datum
        draws = run.draws(datum, DRAWS)
        self._mark("q", draws)
        self._mark("nuts", draws[:0])
        self._say("")
        own = self.show(rows_of(run.data.x, [datum]), LARGE)[0]
        decoded = self._decoded(run.decode(draws[: self.few], datum))
        self.of_datum.text = (
            f"<h2>The datum</h2><div class=row>{own}<div>{facts_html('', run.facts(datum))}"
            "</div></div>"
            f"<h2>Reconstructed from draws of q(z | x)</h2>{decoded}"
        )
        self.move(run.means[datum])

    def _draw_prior(self) -> None:
        seed = self.run.seed + self.times
        try:
            drawn = self.run.prior(2 * self.few, self.datum, self.label, seed=seed)
        except InvalidInput as refusal:
            self.of_prior.text = html.escape(str(refusal))
            return
        self.times += 1
        self._mark("prior", drawn.z)
        self.of_prior.text = f"<h2>From the prior</h2>{self._decoded(drawn.x)}"

    def _start_nuts(self) -> None:
        """Say that it takes a while, and draw once that is on the screen."""
        self.nuts.disabled = True
        self._say("drawing ...")
        if self.nuts.document is not None:
            self.nuts.document.add_timeout_callback(self._draw_nuts, 100)

    def _draw_nuts(self) -> None:
        try:
            found = self.run.reference(self.datum)
        except InvalidInput as refusal:
            self._say(refusal)
        else:
            self._mark("nuts", found.z[:: max(1, len(found.z) // DRAWS)])
            self._say(found)
        self.nuts.disabled = False

    def _say(self, words: object) -> None:
        """Say how NUTS is getting on."""
        self.of_nuts.text = html.escape(str(words))
        self.of_nuts.visible = bool(self.of_nuts.text)

    def _mark(self, name: str, z: Tensor) -> None:
        x, y = self.run.plane.project(z).T.tolist() if len(z) else ([], [])
        self.marks[name].data = {"x": x, "y": y}

    def _decoded(self, x: Tensors) -> str:
        return f"<div class=row>{''.join(self.show(x, SMALL))}</div>"
