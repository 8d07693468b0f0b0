"""Markdown to HTML that is safe to show: rendered without raw HTML, then reduced to an allow-list."""

from functools import cache

import nh3
from markdown_it import MarkdownIt
from markupsafe import escape

TEXT = {"a", "br", "code", "em", "s", "strong"}
BLOCKS = {"blockquote", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre", "ul"}
TABLES = {"table", "tbody", "td", "th", "thead", "tr"}
ATTRIBUTES = {"a": {"href", "title"}, "ol": {"start"}}


@cache
def markdown():
    """The parser: CommonMark with tables and strikethrough; line breaks count, bare web addresses are links."""
    parser = MarkdownIt("js-default", {"html": False, "linkify": True, "breaks": True})
    parser.disable("image")  # a picture would tell its server who reads the chat
    parser.linkify.set({"fuzzy_link": False, "fuzzy_email": False})  # README.md is no address in Moldova
    return parser


def render(source, quotes=()):
    """Return the HTML of a text, with quotes of linked pages below it, and the web addresses it links to."""
    tokens = markdown().parse(source)
    html = markdown().renderer.render(tokens, markdown().options, {})
    return sanitize(html + "".join(map(render_quote, quotes))), find_links(tokens)


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
