"""Pictures as inline SVG: elements, a logarithmic axis, numbers in few characters."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from markupsafe import Markup, escape

from fuzz.pages import words

WIDTH = 310.0
"""Units of a picture's width: the pixels that a phone has for it, so that its text is not scaled
down there."""


def coordinate(value: float) -> str:
    """A coordinate to a tenth of a unit."""
    text = f"{value:.1f}"
    return text[:-2] if text.endswith(".0") else text


def tag(name: str, *children: str, **attributes: str | float) -> Markup:
    """An element; text and attributes are escaped. ``class_`` stands for class."""
    said = Markup("").join(
        Markup(' {}="{}"').format(
            key.rstrip("_").replace("_", "-"),
            coordinate(value) if isinstance(value, int | float) else value,
        )
        for key, value in attributes.items()
    )
    inside = Markup("").join(
        child if isinstance(child, Markup) else escape(words.clean(child)) for child in children
    )
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), said, inside)


def picture(height: float, title: str, *children: str) -> Markup:
    """A picture with its text alternative."""
    size = f"0 0 {coordinate(WIDTH)} {coordinate(height)}"
    return tag("svg", tag("title", title), *children, viewBox=size, role="img")


def text(x: float, y: float, words_: str, class_: str = "") -> Markup:
    """Text; the class says how it is anchored and coloured."""
    return tag("text", words_, x=x, y=y, **({"class_": class_} if class_ else {}))


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """A straight line."""
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def boxes(rectangles: Iterable[tuple[float, float, float, float]], class_: str) -> Markup:
    """Rectangles (x, y, width, height) of one class as one path; nothing for none."""
    path = "".join(
        f"M{coordinate(x)} {coordinate(y)}h{coordinate(w)}v{coordinate(h)}h{coordinate(-w)}z"
        for x, y, w, h in rectangles
    )
    return tag("path", d=path, class_=class_) if path else Markup("")


def dots(points: Iterable[tuple[float, float]], class_: str) -> Markup:
    """Points as one path: lines of no length with round ends."""
    path = "".join(f"M{coordinate(x)} {coordinate(y)}h0" for x, y in points)
    return tag("path", d=path, class_=class_) if path else Markup("")


def polyline(points: Iterable[tuple[float, float]], class_: str) -> Markup:
    """A line through points."""
    path = "L".join(f"{coordinate(x)} {coordinate(y)}" for x, y in points)
    return tag("path", d=f"M{path}", class_=class_) if path else Markup("")


@dataclass(frozen=True)
class LogAxis:
    """A logarithmic axis: values ``low`` to ``high`` lie at ``first`` to ``last``; others at its
    ends."""

    low: float
    high: float
    first: float
    last: float

    def at(self, value: float) -> float:
        """Where a value lies."""
        inside = min(max(value, self.low), self.high)
        share = math.log(inside / self.low) / math.log(self.high / self.low)
        return self.first + share * (self.last - self.first)


def decade(exponent: int) -> str:
    """The label of a power of ten."""
    plain = {-2: "0.01", -1: "0.1", 0: "1", 1: "10", 2: "100", 3: "1,000"}
    return plain.get(exponent, words.power_of_10(10.0**exponent))
