import time

import pytest

from parley.markup import render


def html(source, quotes=()):
    return render(source, quotes)[0]


def links(source):
    return render(source)[1]


def test_markdown_is_rendered():
    assert html("**b** `c` ~~d~~\nnext") == "<p><strong>b</strong> <code>c</code> <s>d</s><br>\nnext</p>\n"


def test_links_open_elsewhere_and_pass_nothing_on():
    assert html("[x](https://a.example/)") == (
        '<p><a href="https://a.example/" target="_blank" rel="noopener nofollow">x</a></p>\n'
    )


@pytest.mark.parametrize(
    "source",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "<svg/onload=alert(1)>",
        "[x](javascript:alert(1))",
        "[x](JaVaScRiPt:alert(1))",
        "[x](data:text/html,<script>alert(1)</script>)",
        "![x](javascript:alert(1))",
        "[x](vbscript:x)",
        "<a href='javascript:alert(1)'>x</a>",
        "<iframe src=//evil.example>",
        "<style>*{}</style>",
        "`<b onclick=x>`",
        '[x](https://a.example/"onmouseover=alert(1))',
        "<javascript:alert(1)>",
    ],
)
def test_nothing_in_a_message_becomes_active(source):
    result = html(source)
    for active in ("<script", "<img", "<svg", "<iframe", "<style", "<b", 'href="javascript', 'href="data', 'href="vb'):
        assert active not in result.lower()
    assert not any(part.split("=")[0].strip().startswith("on") for part in result.split('"')[2::2])


def test_links_are_found_once_and_in_order():
    assert links("see https://b.example/x, [a](http://a.example) <https://c.example/> and https://b.example/x") == [
        "https://b.example/x",
        "http://a.example",
        "https://c.example/",
    ]


@pytest.mark.parametrize(
    "source", ["README.md", "`https://a.example/`", "ftp://a.example/", "[x](/api/users)", "ann@a.example"]
)
def test_what_is_no_web_address_is_not_expanded(source):
    assert links(source) == []


def test_a_quote_shows_title_and_description_as_text():
    result = html("x", [("https://a.example/?a=1&b=2", "<b>T</b>", 'D "<script>"')])
    assert "<blockquote>" in result
    assert "&lt;b&gt;T&lt;/b&gt;" in result
    assert "&lt;script&gt;" in result
    assert 'href="https://a.example/?a=1&amp;b=2"' in result


@pytest.mark.parametrize(
    "source", ["[" * 4000, "*" * 4000, "> " * 2000, "`" * 3999 + "x", "http://" * 571, "<" * 4000, "- " * 2000]
)
def test_hostile_markdown_is_rendered_in_time(source):
    started = time.monotonic()
    render(source)
    assert time.monotonic() - started < 1
