"""The lesson as a page: side by side, in colour. It needs no network, and nothing on it runs."""

from pathlib import Path

import jinja2
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import TextLexer, get_lexer_for_filename
from pygments.util import ClassNotFound

from workshop.lesson import Chapter

# nowrap: only the lines, each with its own marks, so that it can stand in a cell of its own.
FORMATTER = HtmlFormatter(nowrap=True)


def render(earlier: str, later: str, chapters: list[Chapter]) -> str:
    """Return the page, as HTML."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, autoescape=True, trim_blocks=True)
    environment.filters["in_colour"] = in_colour
    return environment.get_template("lesson.html.j2").render(
        earlier=earlier, later=later, chapters=chapters, styles=FORMATTER.get_style_defs("code")
    )


def in_colour(lines: list[str], path: str) -> list[str]:
    """Return the lines of a file as HTML, escaped, with marks for what its language colours."""
    try:
        lexer = get_lexer_for_filename(path, stripnl=False)
    except ClassNotFound:
        lexer = TextLexer(stripnl=False)
    return highlight("\n".join(lines), lexer, FORMATTER).split("\n")
