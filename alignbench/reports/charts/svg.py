"""Pictures as SVG: inline for a page, with classes and no style of their own; and standing alone, for files.

Every string is escaped, and characters that are not seen are replaced.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from math import cos, pi, sin

from markupsafe import Markup, escape

from alignbench.reports.charts.looks import LOOKS, PAPER, Look
from alignbench.reports.charts.picture import XY, Area, Dot, Mark, Path, Picture, Text
from alignbench.reports.table.board import plain_text

SANS = "Liberation Sans, Arial, Helvetica, DejaVu Sans, sans-serif"
HALO = 3.0  # of a text, in the colour of the background
NOT_XML = str.maketrans({"\ufffe": "\ufffd", "\uffff": "\ufffd"})


def inline(picture: Picture, ident: str) -> Markup:
    """The picture for a page whose style sheet has `css()`; `ident` begins the ids of its title and description."""
    return Markup(
        '<svg class="chart" viewBox="0 0 {w} {h}" font-size="{font}" role="img" aria-labelledby="{i}-title {i}-told">'
        '<title id="{i}-title">{title}</title><desc id="{i}-told">{told}</desc>\n{marks}\n</svg>'
    ).format(
        w=_number(picture.width), h=_number(picture.height), font=_number(picture.font), i=ident,
        title=_said(picture.title), told=_said(picture.description), marks=_marks(picture, _Classes()),
    )  # fmt: skip


def standalone(picture: Picture) -> str:
    """The picture as a file: on white, in fonts that common machines have, 1 unit a point."""
    body = Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" viewBox="0 0 {w} {h}" font-family="{sans}" '
        'font-size="{font}"><title>{title}</title><desc>{told}</desc>\n'
        '<rect width="{w}" height="{h}" fill="{paper}"/>\n{marks}\n</svg>\n'
    ).format(
        w=_number(picture.width), h=_number(picture.height), sans=SANS, font=_number(picture.font), paper=PAPER.light,
        title=_said(picture.title), told=_said(picture.description), marks=_marks(picture, _Attributes()),
    )  # fmt: skip
    return str(body).replace("‖", "||")  # which common fonts lack


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


class _Classes:
    """How a mark of a page says its look: by classes of the style sheet."""

    def __call__(self, look: str, kind: str) -> Markup:
        return Markup(' class="{}"').format(class_of(look) if kind == "text" else f"{class_of(look)} {kind}".strip())


class _Attributes:
    """How a mark of a file says its look: by its attributes."""

    def __call__(self, look: str, kind: str) -> Markup:
        its = LOOKS[look]
        if kind == "text":
            said = {"fill": its.edge.light, "stroke": PAPER.light, "stroke-width": f"{HALO * 0.7:g}",
                    "paint-order": "stroke", "stroke-linejoin": "round"}  # fmt: skip
            said |= {"font-weight": "bold"} if its.bold else {}
        else:
            said = {"fill": _fill(its, kind), "stroke": its.edge.light, "stroke-width": f"{its.width:g}"}
            said |= {"stroke-dasharray": its.dash} if its.dash and not kind else {}
        return Markup("").join(Markup(' {}="{}"').format(name, value) for name, value in said.items())


def _fill(look: Look, kind: str) -> str:
    return "none" if not kind or look.fill is None else look.fill.light


class _Bare:
    """No look: that of what the mark is in."""

    def __call__(self, look: str, kind: str) -> Markup:
        return Markup("")


Styled = _Classes | _Attributes | _Bare


def class_of(look: str) -> str:
    """The class of a look."""
    return "l-" + ("none" if look == "—" else look.replace(" ", "-"))


def _marks(picture: Picture, styled: Styled) -> Markup:
    """The marks in their order; those of one row and title that follow each other as one group."""
    groups = groupby(picture.marks, key=lambda mark: (mark.row, mark.title))
    return Markup("\n").join(_group(row, title, list(marks), styled) for (row, title), marks in groups)


def _group(row: int | None, title: str, marks: list[Mark], styled: Styled) -> Markup:
    body = Markup("").join(_mark(mark, styled) for mark in marks)
    if row is None and not title:
        return body
    number = Markup("") if row is None else Markup(' data-n="{}"').format(row)
    said = Markup("<title>{}</title>").format(_said(title)) if title else Markup("")
    return Markup("<g{}>{}{}</g>").format(number, said, body)


def _mark(mark: Mark, styled: Styled) -> Markup:
    match mark:
        case Path(parts=parts):
            return Markup('<path{} d="{}"/>').format(styled(mark.look, ""), "".join(map(_line, parts)))
        case Area(corners=corners):
            return Markup('<path{} d="{}Z"/>').format(styled(mark.look, "area"), _line(corners))
        case Dot():
            return _dot(mark, styled)
        case Text():
            return _text(mark, styled)


def _text(mark: Text, styled: Styled) -> Markup:
    x, y = _number(mark.x), _number(mark.y)
    anchor = "" if mark.anchor == "start" else Markup(' text-anchor="{}"').format(mark.anchor)
    turn = Markup(' transform="rotate({} {} {})"').format(_number(mark.turn), x, y) if mark.turn else ""
    said = _said(mark.text)
    return Markup('<text{} x="{}" y="{}"{}{}>{}</text>').format(styled(mark.look, "text"), x, y, anchor, turn, said)


def _dot(mark: Dot, styled: Styled) -> Markup:
    shape, radius = LOOKS[mark.look].shape, mark.radius * LOOKS[mark.look].size
    if shape == "circle":
        at = map(_number, (mark.x, mark.y, radius))
        return Markup('<circle{} cx="{}" cy="{}" r="{}"/>').format(styled(mark.look, "dot"), *at)
    if shape == "cross":
        strokes = [((mark.x - a, mark.y - b), (mark.x + a, mark.y + b)) for a in (0.8 * radius,) for b in (a, -a)]
        return Markup('<path{} d="{}"/>').format(styled(mark.look, "dot"), "".join(map(_line, strokes)))
    corners = tuple((mark.x + radius * x, mark.y + radius * y) for x, y in SHAPES[shape])
    return Markup('<path{} d="{}Z"/>').format(styled(mark.look, "dot"), _line(corners))


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
    return "M" + "L".join(f"{_number(x)} {_number(y)}" for x, y in points)


def symbol(look: str) -> Markup:
    """The shape of a look around the origin; its colours are those of what shows it, `<svg class="dot l-better">`."""
    return _dot(Dot(0, 0, 4, look), _Bare())


def _number(value: float) -> str:
    """To a hundredth of a unit."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if abs(value) >= 0.005 else "0"


def _said(text: str) -> Markup:
    return escape(plain_text(text.translate(NOT_XML)))
