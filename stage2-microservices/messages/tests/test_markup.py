import time

import pytest

from parley.markup import MAX_HTML, MAX_NESTING, TooComplex, add_quotes, render

# Texts of 4,000 characters that took the parser up to 1.1 s, or became up to 8 MB of HTML, before there were limits.
HOSTILE = {
    "a table with short rows": "a|" * 400 + "\n" + "-|" * 400 + "\n" + "x\n" * 1200,
    "a table of one column": "|a|\n|-|\n" + "|\n" * 1990,
    "many tables": "a|b\n-|-\n" * 500,
    "quotes in quotes before short lines": ">" * 1000 + "x\n" * 1400,
    "a table in quotes": ">" * 100 + "a|" * 300 + "\n" + ">" * 100 + "-|" * 300 + "\n" + "x\n" * 1200,
    "quotes and lists in each other": ">- " * 600 + "\n" + "x\n" * 1000,
    "a definition with many uses": "[a]: http://" + "&" * 2000 + "\n\n" + "[a]" * 660,
    "a title with many uses": "[a]: /b (" + '"' * 1500 + ")\n\n" + "[a]" * 800,
    "characters of which each becomes twelve": "[a]: http://b/" + "😀" * 2000 + "\n\n" + "[a]" * 650,
    "brackets": "[" * 4000,
    "empty links": "[](" * 1333,
    "references": "[x][" * 1000,
    "definitions without an end": "[a\n" * 1333,
    "brackets around brackets": "[" * 2000 + "]" * 2000,
    "addresses without an end": "<http://" * 500,
    "addresses in addresses": "http://" * 571,
    "short addresses": "http://é " * 444,
    "mail addresses": "<a@b>" * 800,
    "emphasis in emphasis": "*a _b " * 330 + "_ *" * 330,
    "asterisks": "*" * 4000,
    "backticks": "`" * 3999 + "x",
    "angle brackets": "<" * 4000,
    "list marks": "- " * 2000,
    "quote marks": "> " * 2000,
}
ORDINARY = {
    "plain text": "Hello, how are you? " * 200,
    "short lines": "a\n" * 2000,
    "emoji": "😀" * 4000,
    "a list": "- a\n" * 1000,
    "a table": "|a|b|c|\n|-|-|-|\n" + "| ab | cd | ef |\n" * 240,
    "links": "see https://a.example/b and " * 140,
    "nested lists": "".join(" " * 2 * (n % 8) + "- an item\n" for n in range(230)),
    "a quoted reply": "> > a line\n" * 350,
    "code": "```\n" + "if (a[i] < b) { *c = &d; }\n" * 140,
    "code without a fence": "if (a[i] < b) { *c = &d; }\n" * 140,
    "signs": "&" * 4000,
}


def html(source, quotes=()):
    return add_quotes(render(source)[0], quotes)


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


def test_hostile_markdown_is_rendered_or_refused_in_time():
    render("x")  # makes the parser
    took = {}
    for name, source in HOSTILE.items():
        started = time.process_time()
        try:
            assert len(html(source[:4000]).encode()) <= MAX_HTML, name
        except TooComplex:
            pass
        took[name] = time.process_time() - started
    slowest = max(took, key=took.get)
    print(f"the slowest of {len(took)}: {slowest}, {1000 * took[slowest]:.0f} ms")
    assert took[slowest] < 0.3, slowest  # seconds; measured: 0.05 to 0.09, depending on what else the machine does


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_texts_of_4000_characters_are_within_the_limits(text):
    assert html(ORDINARY[text][:4000])


def test_nesting_has_a_limit_and_nothing_is_dropped_before_it():
    def nested(mark, levels):
        return mark * levels + "the text"

    for mark, levels in ((">", MAX_NESTING - 1), ("- ", MAX_NESTING // 2 - 1), ("*", 2 * (MAX_NESTING - 1))):
        assert "the text" in html(nested(mark, levels))
    for mark, levels in ((">", MAX_NESTING), ("- ", MAX_NESTING // 2), (">", 1000)):
        with pytest.raises(TooComplex, match="Use fewer levels"):
            render(nested(mark, levels))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a table with short rows", "Use fewer table cells"),
        ("quotes in quotes before short lines", "Use fewer brackets"),
        ("emphasis in emphasis", "Use fewer levels"),
        ("a definition with many uses", "Use fewer links"),
    ],
)
def test_a_refusal_says_what_to_do(text, problem):
    with pytest.raises(TooComplex, match=problem):
        render(HOSTILE[text][:4000])


def test_quotes_do_not_make_the_html_larger_than_the_limit():
    with pytest.raises(TooComplex):
        add_quotes("x" * (MAX_HTML - 100), [("https://a.example/", "title", "description")])
