"""Words as LaTeX prints them: any string comes out as itself, as code points where a letter is not in every font."""

from __future__ import annotations

import re
from unicodedata import name

GREEK = {
    letter: "\\" + (name(letter).split()[-1].lower() if letter.islower() else name(letter).split()[-1].capitalize())
    for letter in "αβγδεζηθικμνξπρστυφχψωΓΔΘΞΠΣΦΨΩ"
} | {"λ": r"\lambda", "Λ": r"\Lambda"}  # which Unicode calls LAMDA
SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\symbol{34}", "'": r"\textquotesingle{}", "`": r"\textasciigrave{}",
    "[": "{[}", "]": "{]}", "*": "{*}",  # a bracket or a star after \\ would be read as its argument
    "—": "---", "–": "--", "…": r"\ldots{}", "·": r"$\cdot$", "±": r"$\pm$", "∞": r"$\infty$", "≥": r"$\geq$",
    "≤": r"$\leq$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "→": r"$\to$", "‖": r"$\Vert$", "×": r"$\times$",
    "−": "$-$", "√": r"$\surd$", "◆": r"$\diamond$", "Ẑ": r"\^{Z}", "\u00a0": "~",
    **{letter: f"${command}$" for letter, command in GREEK.items()},
    **{raised: f"$^{digit}$" for raised, digit in zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-", strict=True)},
}  # fmt: skip
LAST = "\u017f"
"""The last letter that LaTeX's own reading of UTF-8 knows, but for those of `MISSING`, in its oldest encoding, OT1."""
MISSING = "«»ÐÞðþĄąĐđĘęĦħĮįĸĿŀŉŊŋŦŧŲųſ"
THIN, NARROW, WIDE = 3.2, 4.4, 6.8  # points that a letter takes at 8 points, rather more than less


def escape(text: str) -> str:
    """`text` as LaTeX prints it; a letter that not every engine has, as its code point."""
    apart = re.sub(r"([-,])(?=\1)", "\\1\0", text.replace("\0", "\N{REPLACEMENT CHARACTER}"))  # -- is no dash here
    return "".join(map(_letter, re.findall(r".\u0302|.", apart, re.DOTALL)))


def running(text: str, room: float) -> str:
    """`text` escaped; a word of more than `room` points may break, after each sign and within long runs of letters."""
    return re.sub(r"[^ ]+", lambda found: _broken(found[0]) if points(found[0]) > room else escape(found[0]), text)


def points(text: str) -> float:
    """About how many points of width `text` takes in `footnotesize`."""
    return sum(map(_width, text))


def _width(letter: str) -> float:
    if _is_unknown(letter):
        return 8 * NARROW
    if letter in " .,:;!|/ijlftr()[]-'`":
        return THIN
    return WIDE if letter.isupper() or letter in "±↑↓≥≤∞◆—mw%" else NARROW


def _letter(letter: str) -> str:
    if letter == "\0":
        return "{}"
    if len(letter) == 2:
        base = GREEK.get(letter[0], letter[0] if letter[0].isascii() and letter[0].isalpha() else "")
        return rf"$\hat{{{base}}}$" if base else "".join(map(_letter, letter))
    return SPECIAL.get(letter) or (f"{{[}}U+{ord(letter):04X}{{]}}" if _is_unknown(letter) else letter)


def _is_unknown(letter: str) -> bool:
    return letter not in SPECIAL and (letter > LAST or letter in MISSING or "\x7f" <= letter < "\xa0" or letter < " ")


def _broken(word: str) -> str:
    return r"\allowbreak{}".join(map(escape, re.findall(r"[0-9A-Za-z]{1,14}[_:.,;=/|#-]?|.\u0302?", word, re.DOTALL)))
