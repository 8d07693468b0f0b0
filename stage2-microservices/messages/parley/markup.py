"""Markdown to HTML that is safe to show: rendered without raw HTML, then reduced to an allow-list."""

from functools import cache
from itertools import chain

import nh3
from markdown_it import MarkdownIt
from markdown_it.rules_core import StateCore
from markupsafe import escape

TEXT = {"a", "br", "code", "em", "s", "strong"}
BLOCKS = {"blockquote", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre", "ul"}
TABLES = {"table", "tbody", "td", "th", "thead", "tr"}
ATTRIBUTES = {"a": {"href", "title"}, "ol": {"start"}}

# A short text can make a parser work for seconds and write megabytes: a table fills up its short rows, and a link
# definition is copied to each of its uses. These limits count work, so they refuse the same text on every machine. A
# timer could not stop the parser either: it holds the only event loop of its process until it returns.
MAX_NESTING = 20  # elements within each other; a list takes two: ul and li
MAX_STEPS = 8_000  # positions at which the parser tries its rules; 2,000 lines of one letter take 7,998
MAX_TOKENS = 6_000  # elements and texts outside paragraphs; a list of 1,000 items takes 5,002, a table cell 3
MAX_HTML = 32 * 1024  # bytes; 4,000 characters of plain text take at most 24,000


class TooComplex(Exception):
    """A text would take too long to render, or become too much HTML; the message is a sentence for the user."""


@cache
def markdown():
    """The parser: CommonMark with tables and strikethrough; line breaks count, bare web addresses are links."""
    # The parser drops what is nested deeper than maxNesting, so render() refuses the text one level before that.
    parser = MarkdownIt("js-default", {"html": False, "linkify": True, "breaks": True, "maxNesting": MAX_NESTING + 1})
    parser.disable("image")  # a picture would tell its server who reads the chat
    parser.linkify.set({"fuzzy_link": False, "fuzzy_email": False})  # README.md is no address in Moldova
    # "alt" lists the blocks whose continuation lines are tried as well: there, too, each line is counted.
    parser.block.ruler.before("table", "count", count_step, {"alt": ["paragraph", "reference", "blockquote", "list"]})
    parser.inline.ruler.before("text", "count", count_step)
    return parser


def count_step(state, *_):
    """Count the step, as a rule that the parser tries first everywhere and that never matches; raises TooComplex."""
    state.env["steps"] += 1
    if state.env["steps"] > MAX_STEPS:
        raise TooComplex("The message has too much markup. Use fewer brackets and signs, or post it in parts.")
    return False


class Tokens(list):
    """The tokens of a text; refuses more than MAX_TOKENS while the parser still writes them."""

    def append(self, token):
        if len(self) == MAX_TOKENS:
            raise TooComplex("The message has too many elements. Use fewer table cells, or post it in parts.")
        super().append(token)


def render(source):
    """Return the HTML of a text, and the web addresses it links to; raises TooComplex."""
    tokens = parse(source)
    html = sanitize(markdown().renderer.render(tokens, markdown().options, {}))
    check_size(len(html.encode()))
    return html, find_links(tokens)


def add_quotes(html, quotes):
    """Return HTML with quotes of linked pages below it, (url, title, description) each; raises TooComplex."""
    html += sanitize("".join(map(render_quote, quotes)))
    check_size(len(html.encode()))
    return html


def parse(source):
    """Return the tokens of a text; raises TooComplex."""
    state = StateCore(source, markdown(), {"steps": 0})
    state.tokens = Tokens()
    markdown().core.process(state)
    elements = list(chain.from_iterable((token, *(token.children or ())) for token in state.tokens))
    if any(element.nesting == 1 and element.level >= MAX_NESTING for element in elements):
        raise TooComplex("The message nests quotes, lists or emphasis too deeply. Use fewer levels.")
    # Before rendering: a link definition of 2,000 characters and 600 uses would become megabytes of HTML.
    check_size(sum(len(str(value)) for element in elements for value in element.attrs.values()))
    return state.tokens


def check_size(size):
    """Raise TooComplex if a size is too large for the HTML of a message."""
    if size > MAX_HTML:
        raise TooComplex("The message becomes too much HTML. Use fewer links and tables, or post it in parts.")


def sanitize(html):
    """Return only what the allow-list has."""
    return nh3.clean(
        html,
        tags=TEXT | BLOCKS | TABLES,
        attributes=ATTRIBUTES,
        url_schemes={"http", "https"},
        link_rel="noopener nofollow",
        set_tag_attribute_values={"a": {"target": "_blank"}},
    )


def render_quote(quote):
    """Return title and description of a linked page as a block quote; both are text, whatever they look like."""
    url, title, description = map(escape, quote)
    text = f"<p>{description}</p>" if description else ""
    return f'<blockquote><p><a href="{url}">{title}</a></p>{text}</blockquote>\n'


def find_links(tokens):
    """Return the http and https addresses that the text links to, each once, in their order."""
    inline = [child for token in tokens for child in token.children or ()]
    targets = [token.attrs["href"] for token in inline if token.type == "link_open"]
    return list(dict.fromkeys(url for url in targets if url.lower().startswith(("http://", "https://"))))
