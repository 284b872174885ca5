"""Pictures as SVG: inline for a page, with classes and no style of their own; and standing alone, for files.

Every string is escaped, and characters that are not seen are replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from itertools import groupby
from math import cos, pi, sin

from markupsafe import Markup, escape

from alignbench.reports.charts.looks import LOOKS, PAPER
from alignbench.reports.charts.picture import XY, Area, Dot, Mark, Path, Picture, Text
from alignbench.reports.table.board import plain_text

SANS = "Liberation Sans, Arial, Helvetica, DejaVu Sans, sans-serif"
HALO = 3.0  # of a text, in the colour of the background
NOT_XML = str.maketrans({"\ufffe": "\ufffd", "\uffff": "\ufffd"})


def inline(picture: Picture, ident: str) -> Markup:
    """The picture for a page whose style sheet has `css()`; `ident` begins the ids of its title and description."""
    title, told, i = _said(picture.title), _said(picture.description), _said(ident)
    return Markup(
        f'<svg class="chart" viewBox="0 0 {_number(picture.width)} {_number(picture.height)}" '
        f'font-size="{_number(picture.font)}" role="img" aria-labelledby="{i}-title {i}-told">'
        f'<title id="{i}-title">{title}</title><desc id="{i}-told">{told}</desc>\n{_marks(picture, _by_class)}\n</svg>'
    )


def standalone(picture: Picture) -> str:
    """The picture as a file: on white, in fonts that common machines have, 1 unit a point."""
    w, h = _number(picture.width), _number(picture.height)
    text = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" viewBox="0 0 {w} {h}" '
        f'font-family="{SANS}" font-size="{_number(picture.font)}">'
        f"<title>{_said(picture.title)}</title><desc>{_said(picture.description)}</desc>\n"
        f'<rect width="{w}" height="{h}" fill="{PAPER.light}"/>\n{_marks(picture, _by_attributes)}\n</svg>\n'
    )
    return text.replace("‖", "||")  # which common fonts lack


def css() -> str:
    """The rules for all looks, light and dark, of a page that has inline pictures."""
    rules = [".chart { display: block; width: 100%; height: auto; font-family: system-ui, sans-serif; }",
             ".chart path { fill: none; }",
             f".chart text {{ stroke-width: {HALO:g}px; paint-order: stroke; stroke-linejoin: round; }}"]  # fmt: skip
    for name, look in LOOKS.items():
        dash = f" stroke-dasharray: {look.dash};" if look.dash else ""
        rules.append(f".{class_of(name)}:not(text) {{ stroke-width: {look.width:g}px; }}")
        rules += [f".{class_of(name)} {{ font-weight: 600; }}"] if look.bold else []
        rules += [f"path.{class_of(name)}:not(.dot) {{{dash} }}"] if dash else []
    dark = "\n".join(f"  {rule}" for rule in _colours(dark=True))
    return "\n".join([*rules, *_colours(dark=False), f"@media (prefers-color-scheme: dark) {{\n{dark}\n}}"]) + "\n"


def _colours(*, dark: bool) -> Iterator[str]:
    yield f".chart text {{ stroke: {PAPER[dark]}; }}"
    for name, look in LOOKS.items():
        yield f".{class_of(name)} {{ stroke: {look.edge[dark]}; }}"
        yield f"text.{class_of(name)} {{ stroke: {PAPER[dark]}; fill: {look.edge[dark]}; }}"
        if look.fill is not None:
            yield f".dot.{class_of(name)}, .area.{class_of(name)} {{ fill: {look.fill[dark]}; }}"


Styled = Callable[[str, str], str]
"""Look, and what is drawn (text, dot, area, "" for a line) → the attributes that say so."""


def _by_class(look: str, kind: str) -> str:
    """How a mark of a page says its look: by classes of the style sheet."""
    return f' class="{class_of(look)} {kind}"' if kind in ("dot", "area") else f' class="{class_of(look)}"'


@cache
def _by_attributes(look: str, kind: str) -> str:
    """How a mark of a file says its look: by its attributes."""
    its = LOOKS[look]
    if kind == "text":
        said = {"fill": its.edge.light, "stroke": PAPER.light, "stroke-width": f"{HALO * 0.7:g}",
                "paint-order": "stroke", "stroke-linejoin": "round"}  # fmt: skip
        said |= {"font-weight": "bold"} if its.bold else {}
    else:
        fill = "none" if not kind or its.fill is None else its.fill.light
        said = {"fill": fill, "stroke": its.edge.light, "stroke-width": f"{its.width:g}"}
        said |= {"stroke-dasharray": its.dash} if its.dash and not kind else {}
    return "".join(f' {name}="{value}"' for name, value in said.items())


def class_of(look: str) -> str:
    """The class of a look."""
    return "l-" + ("none" if look == "—" else look.replace(" ", "-"))


def _marks(picture: Picture, styled: Styled) -> str:
    """The marks in their order; those of one row and title that follow each other as one group."""
    groups = groupby(picture.marks, key=lambda mark: (mark.row, mark.title))
    return "\n".join(_group(row, title, list(marks), styled) for (row, title), marks in groups)


def _group(row: int | None, title: str, marks: list[Mark], styled: Styled) -> str:
    body = "".join(_mark(mark, styled) for mark in marks)
    if row is None and not title:
        return body
    number = "" if row is None else f' data-n="{row:d}"'
    said = f"<title>{_said(title)}</title>" if title else ""
    return f"<g{number}>{said}{body}</g>"


def _mark(mark: Mark, styled: Styled) -> str:
    match mark:
        case Path(parts=parts):
            return f'<path{styled(mark.look, "")} d="{"".join(map(_line, parts))}"/>'
        case Area(corners=corners):
            return f'<path{styled(mark.look, "area")} d="{_line(corners)}Z"/>'
        case Dot():
            return _dot(mark, styled)
        case Text():
            return _text(mark, styled)


def _text(mark: Text, styled: Styled) -> str:
    x, y = _number(mark.x), _number(mark.y)
    anchor = "" if mark.anchor == "start" else f' text-anchor="{_said(mark.anchor)}"'
    turn = f' transform="rotate({_number(mark.turn)} {x} {y})"' if mark.turn else ""
    return f'<text{styled(mark.look, "text")} x="{x}" y="{y}"{anchor}{turn}>{_said(mark.text)}</text>'


def _dot(mark: Dot, styled: Styled) -> str:
    shape, radius, its = LOOKS[mark.look].shape, mark.radius * LOOKS[mark.look].size, styled(mark.look, "dot")
    if shape == "circle":
        return f'<circle{its} cx="{_number(mark.x)}" cy="{_number(mark.y)}" r="{_number(radius)}"/>'
    if shape == "cross":
        a = 0.8 * radius
        strokes = [((mark.x - a, mark.y - b), (mark.x + a, mark.y + b)) for b in (a, -a)]
        return f'<path{its} d="{"".join(map(_line, strokes))}"/>'
    corners = tuple((mark.x + radius * x, mark.y + radius * y) for x, y in SHAPES[shape])
    return f'<path{its} d="{_line(corners)}Z"/>'


def _star() -> tuple[XY, ...]:
    reach = [(1.2 if k % 2 == 0 else 0.55, -pi / 2 + k * pi / 5) for k in range(10)]
    return tuple((r * cos(angle), r * sin(angle)) for r, angle in reach)


SHAPES: dict[str, tuple[XY, ...]] = {
    "square": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    "diamond": ((0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)),
    "triangle-up": ((0, -1.2), (1.15, 0.9), (-1.15, 0.9)),
    "triangle-down": ((0, 1.2), (1.15, -0.9), (-1.15, -0.9)),
    "star": _star(),
}
"""Corners, in radii from the point, y down."""


def _line(points: tuple[XY, ...]) -> str:
    """The path through these points, by what is shortest for each."""
    x, y = (_number(v) for v in points[0])
    said = [f"M{x} {y}"]
    for point in points[1:]:
        last, (x, y) = (x, y), (_number(point[0]), _number(point[1]))
        said.append(f"V{y}" if x == last[0] else f"H{x}" if y == last[1] else f"L{x} {y}")
    return "".join(said)


def symbol(look: str) -> Markup:
    """The shape of a look around the origin; its colours are those of what shows it, `<svg class="dot l-better">`."""
    return Markup(_dot(Dot(0, 0, 4, look), lambda look, kind: ""))


def _number(value: float) -> str:
    """To a tenth of a unit."""
    return f"{value:.1f}".removesuffix(".0") if abs(value) >= 0.05 else "0"


def _said(text: str) -> str:
    """Text as markup."""
    return str(escape(plain_text(text.translate(NOT_XML))))
