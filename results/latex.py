"""Tables as LaTeX for a paper: one `table` each, ruled by booktabs, in plain pdflatex."""

import re
import unicodedata
from collections.abc import Sequence

from results.sheet import Cell, Sheet, shown

COMMANDS = {f"{c}": f"\\{c}" for c in "#$%&_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # after \\ these two would be its argument and its star
    "*": "{*}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "−": "$-$",
    "×": r"$\times$",
    "≈": r"$\approx$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "–": "--",
    "†": r"\dag{}",
    "‡": r"\ddag{}",
}


def latex(sheets: Sequence[Sheet]) -> str:
    """All tables, one after the other; they need \\usepackage{booktabs} and \\usepackage[T1]{fontenc}."""
    head = "% \\usepackage[T1]{fontenc} \\usepackage{booktabs}\n"
    return head + "\n".join(_table(sheet, number) for number, sheet in enumerate(sheets, 1))


def escaped(text: str) -> str:
    """Any text as LaTeX that prints it; what pdflatex has no sign for becomes a question mark."""
    return "".join(COMMANDS.get(c) or _plain(c) for c in " ".join(text.split()))


def _plain(c: str) -> str:
    if " " <= c <= "~":
        return c
    stripped = unicodedata.normalize("NFKD", c).encode("ascii", "ignore").decode()
    return "".join(COMMANDS.get(s, s) for s in stripped if s.isprintable()) or "?"


def _table(sheet: Sheet, number: int) -> str:
    heads, rows = sheet.grid()
    body = [" & ".join(f"\\textbf{{{escaped(h)}}}" for h in heads) + r" \\", r"\midrule"]
    for line, texts in rows:
        if not line.cells:
            body.append(f"\\multicolumn{{{len(heads)}}}{{l}}{{\\emph{{{escaped(line.texts[0])}}}}} \\\\")
            continue
        body.append(" & ".join(_bold(text) if isinstance(text, Cell) else escaped(text) for text in texts) + r" \\")
    columns = "l" * len(sheet.leads) + "r" * (len(heads) - len(sheet.leads))
    label = re.sub(r"[^a-z0-9]+", "-", sheet.name.lower()).strip("-")
    small = " ".join(escaped(text.replace("`", "")) for text in [*sheet.intro, *sheet.notes])
    return "\n".join([
        r"\begin{table}[t]", r"\centering", f"\\caption{{{escaped(sheet.heading)}}}", f"\\label{{tab:{label}-{number}}}",
        f"\\begin{{tabular}}{{{columns}}}", r"\toprule", *body, r"\bottomrule", r"\end{tabular}",
        *([r"\par\smallskip", f"{{\\footnotesize {small}\\par}}"] if small else []), r"\end{table}", "",
    ])  # fmt: skip


def _bold(cell: Cell) -> str:
    text = escaped(shown(cell))
    return f"\\textbf{{{text}}}" if cell.best else text
