"""Reads a page as a browser does, and refuses what is not valid HTML."""

from __future__ import annotations

import re
from xml.etree.ElementTree import Element

import html5lib

HTML = "{http://www.w3.org/1999/xhtml}"
SVG = "{http://www.w3.org/2000/svg}"

# All that a page is made of; what comes from a history is text and never one of these.
ELEMENTS = {
    *("html", "head", "meta", "title", "link", "style", "body", "script"),
    *("header", "main", "footer", "nav", "section", "article", "figure", "figcaption"),
    *("h1", "h2", "h3", "p", "a", "b", "i", "br", "code", "span", "div", "ul", "li", "dl"),
    *("dt", "dd", "table", "thead", "tbody", "tr", "th", "td", "details", "summary"),
    *("label", "select", "option"),
    *("svg", "g", "path", "rect", "line", "text"),
}

ATTRIBUTES = {
    *("lang", "charset", "http-equiv", "content", "name", "rel", "href", "class", "id", "hidden"),
    *("title", "tabindex", "role", "aria-label", "data-target", "scope", "colspan", "value"),
    *("viewBox", "d", "x", "y", "x1", "y1", "x2", "y2", "width", "height"),
}


def parsed(page: str) -> Element:
    """The document.

    Raises: html5lib's ParseError where a browser would have to guess.
    """
    root = html5lib.HTMLParser(strict=True).parse(page)
    for element in root.iter():
        assert name(element) in ELEMENTS, name(element)
        assert set(element.attrib) <= ATTRIBUTES, element.attrib
    return root


def name(element: Element) -> str:
    return re.sub("{.*}", "", element.tag)


def words(element: Element) -> str:
    """The text, with single blanks."""
    return " ".join("".join(element.itertext()).split())


def all_of(root: Element, kind: str, class_: str = "") -> list[Element]:
    """The elements of a kind that have a class."""
    return [
        element
        for element in root.iter()
        if name(element) == kind and (not class_ or class_ in element.get("class", "").split())
    ]


def one(root: Element, kind: str, class_: str = "") -> Element:
    (element,) = all_of(root, kind, class_)
    return element


def section(root: Element, id_: str) -> Element:
    (element,) = (s for s in all_of(root, "section") if s.get("id") == id_)
    return element


def rows(table: Element) -> list[list[str]]:
    """The cells of a table's rows, as words."""
    return [
        [words(cell) for cell in row if name(cell) in ("td", "th")] for row in all_of(table, "tr")
    ]


def boxes(picture: Element, class_: str) -> list[tuple[float, float, float, float]]:
    """The rectangles (x, y, width, height) of a class, out of its paths."""
    return [
        tuple(map(float, box))
        for path in all_of(picture, "path")
        if path.get("class") == class_
        for box in re.findall(r"M([\d.]+) ([\d.]+)h([\d.]+)v([\d.]+)h-[\d.]+z", path.get("d", ""))
    ]
