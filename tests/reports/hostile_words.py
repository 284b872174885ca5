"""A thousand strings that mean harm, always the same."""

from __future__ import annotations

import random

from alignbench.reports.formats.readme import END, START

ATTACKS = (
    "<script>alert(1)</script>", "</script><script>alert(1)//", "</style><style>*{display:none}", "</title><h1>x",
    '"><img src=x onerror=alert(1)>', "' onmouseover='alert(1)", "<svg/onload=alert(1)>",
    "<a href=javascript:x>y</a>", "javascript:alert(1)", "<!-- comment", "-->", "--!>", "]]>", "<![CDATA[x",
    "<?php x ?>", "&lt;b&gt; &amp; &#60;", "&notanentity;", "</td></tr></table>", "<template>", "</textarea>",
    "{{7*7}}", "{% include 'x' %}", "${7*7}", "#{7}", "=cmd|' /C calc'!A0", "+1+1", "-1+1", "@SUM(A1:A9)", "\t=1+1",
    "\r=1+1", "\n=1+1", '";=1+1;"', "a;=1+1", "'=1+1", "''", '"', '""', '=HYPERLINK("http://evil.example","x")',
    "\uff1d1+1", "\\input{/etc/passwd}", "\\write18{ls}", "\\immediate\\openout5=x", "\\catcode`\\%=0",
    "\\end{document}", "\\end{tabular}\\end{table}", "\\csname x\\endcsname", "%", "100%", "$$", "$x^2$", "^^5c",
    "^^M", "#1", "~", "{", "}", "}{", "[", "]", "[2pt]", "*", "*{9}", "\\", "\\\\", "\\\\[9cm]", "& x & y", "_",
    "__init__", "_a_", "--", "---", "<<", "?`", "`", "``", "```", "``x``", "|", "\\|", "a|b", "| --- |", "**bold**",
    "*em*", "~~gone~~", "[link](http://evil.example)", "![i](http://evil.example/x.png)",
    "[ref]: http://evil.example", "[^1]", "[^1]: note", "http://evil.example", "https://evil.example/a?b=c",
    "www.evil.example", "mailto:a@evil.example", "someone@evil.example", "@everyone", "#123", "GH-1", ":smile:",
    "a:b:c", "# title", "- item", "+ item", "1. item", "1) item", "12. x", "===", "> quote", "    code",
    "<http://evil.example>", START, END, f"\n{END}\n", "\u202eturned\u202c", "\u2066isolated\u2069", "\u200fright",
    "\u061carabic", "a\u200bb", "\ufeffmark", "\u00adsoft", "\u2060joined", "\U000e0041tag", "\x00", "a\x00b",
    "\x1b[31mred\x1b[0m", "\x1b]0;t\x07", "\x9b31m", "\x07", "\x08\x08\x08", "\x7f", "\ud800", "\udcff", "x\udfffy",
    "\ufffe", "two\nlines", "cr\ronly", "crlf\r\n", "\u2028", "\u2029", "\x85", "\v\f", " ", "  spaced  ", "", "nan",
    "NaN", "inf", "null", "None", "NA", "[bold]rich[/bold]", "[link=http://evil.example]x[/link]", "中文 🎲",
    "👩\u200d⚕️", "שלום", "مرحبا",
    "Ẑ λ̂ x̂ \u0302", "é«»ÐĦ½¤", "π₁ ∮ ℝ", "a\u0301\u0302\u0303\u0304" * 9, "◆",
    "— not measured", "x" * 10_000, "<" * 3_000, "中" * 3_000, "a_" * 3_000, "{name: prompt, text: '<b>'}",
    "{name: a, b: {name: c}}", "{a: &a [*a]}", "!!python/object:os.system x", "best_of_n:n=</td>", "2001-99-99",
    "a|b|c:d", "base", "draws of p", "constant:text=</script>",
)  # fmt: skip
COUNT = 1000


def strings() -> list[str]:
    """The named attacks, then mixtures of them with letters from all over Unicode: always the same."""
    dice = random.Random(20)
    letters = [
        chr(c) for c in (*range(0x250), *range(0x2000, 0x2070), *range(0xFE00, 0xFE10), 0xD8FF, 0x10FFFF, 0x1F3B2)
    ]
    pieces = [attack for attack in ATTACKS if len(attack) < 100]
    mixed = ["".join(dice.choices(pieces, k=2) + dice.choices(letters, k=3)) for _ in range(COUNT - len(ATTACKS))]
    return [*ATTACKS, *mixed]
