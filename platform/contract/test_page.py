"""The page: two people in a real browser, each in a context of their own, and what they see of each other."""

import re
import secrets
import time
from urllib.parse import urlsplit

import pytest
from contract.conftest import Client
from playwright.sync_api import Page, expect
from sqlalchemy import text as sql
from tests import browsers
from tests.load import suspended

OPTIONS = [
    "--no-sandbox",  # Chromium refuses to run as root otherwise; it loads nothing but our own page
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--no-first-run",
]
PASSWORD = "correct horse"  # noqa: S105
NARROW = {"width": 360, "height": 640}
LOST = re.compile("ERR_FAILED|ERR_CONNECTION|WebSocket connection|status of 50")  # when an instance is gone
REFUSED = re.compile("status of 401")


class Visitor:
    """Somebody with a browser window; what goes wrong in it is noted, and fails the test in the end."""

    def __init__(self, browser, url: str, **options):
        self.context = browser.new_context(base_url=url, locale="en-GB", **options)
        self.context.set_default_timeout(10_000)  # ms
        self.host = urlsplit(url).netloc
        self.problems: list[str] = []
        self.expected: re.Pattern | None = None
        self.page: Page = self.context.new_page()
        self.page.on("console", lambda message: message.type == "error" and self.note(message.text))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("request", lambda request: self.check_host(request.url))
        self.page.on("websocket", lambda socket: self.check_host(socket.url))
        self.page.goto("/")

    def note(self, text: str) -> None:
        if not (self.expected and self.expected.search(text)):
            self.problems.append(text)

    def check_host(self, address: str) -> None:
        if urlsplit(address).netloc not in (self.host, ""):  # none: data:
            self.problems.append(f"request to {address}")

    def enter(self, button: str, nickname: str, password: str = PASSWORD) -> None:
        """Fill in the form and choose "Sign in" or "Create account"."""
        self.page.get_by_label("Nickname").fill(nickname)
        self.page.get_by_label("Password").fill(password)
        self.page.get_by_role("button", name=button).click()

    def register(self) -> "Visitor":
        self.nickname = f"user-{secrets.token_hex(4)}"
        self.enter("Create account", self.nickname)
        expect(self.draft).to_be_focused()
        return self

    @property
    def draft(self):
        return self.page.get_by_label("Message", exact=True)

    @property
    def banner(self):
        return self.page.locator("#banner")

    def say(self, text: str) -> None:
        self.draft.fill(text)
        self.page.get_by_role("button", name="Send").click()

    def message(self, text: str):
        """Return the message in the conversation that has this text."""
        return self.page.get_by_role("log", name="Messages").get_by_role("article").filter(has_text=text)

    def person(self, state: str, nickname: str):
        return self.page.get_by_role("list", name=state).get_by_role("listitem").filter(has_text=nickname)

    def edit(self, text: str, new: str, finish: str) -> None:
        """Open the editor of one's own message, write something else, and save or cancel."""
        self.message(text).hover()
        self.message(text).get_by_role("button", name="Edit").click()
        self.page.get_by_label("Edited message").fill(new)
        self.page.get_by_role("button", name=finish).click()

    def wait_for_socket(self) -> None:
        """Wait until pushes come over a WebSocket: the connection begins with polling."""
        expect(self.page.locator("#hood-transport")).to_have_text("websocket")

    def socket_instance(self) -> str:
        """Return the instance that holds this page's Socket.IO connection: the load balancer's cookie names it."""
        return next(c["value"] for c in self.context.cookies() if c["path"] == "/socket.io")

    @property
    def token(self) -> str:
        return self.page.evaluate("localStorage.getItem('parley.token')")

    def measure(self, expression: str):
        return self.page.evaluate(expression)


@pytest.fixture(scope="module")
def browser():
    with browsers.browser(*OPTIONS) as chromium:
        yield chromium


@pytest.fixture
def visit(browser, url):
    """Open the page in a browser context of its own."""
    visitors = []

    def open_page(**options) -> Visitor:
        visitors.append(Visitor(browser, url, **options))
        return visitors[-1]

    yield open_page
    for visitor in visitors:
        visitor.context.close()
    assert [visitor.problems for visitor in visitors] == [[] for _ in visitors]


@pytest.fixture
def text():
    """A text that no other message has."""
    return f"words {secrets.token_hex(6)}"


def test_two_people_chat_and_see_each_other(visit, text):
    one, other = visit().register(), visit().register()
    expect(one.person("Online", other.nickname)).to_be_visible()
    expect(other.person("Online", one.nickname)).to_be_visible()

    one.say(f"question {text}")
    expect(other.message(f"question {text}")).to_be_visible()
    other.say(f"answer {text}")
    expect(one.message(f"answer {text}")).to_be_visible()
    for visitor in (one, other):
        expect(visitor.message(text)).to_have_count(2)
        expect(visitor.page.locator("#outbox li")).to_have_count(0)
        expect(visitor.message(f"question {text}")).to_have_accessible_name(
            re.compile(f"^{one.nickname}, [0-9]+:[0-9]+")
        )


def test_a_stranger_reads_along_and_can_not_write(visit, ann, text):
    ann.say(text)
    stranger = visit()
    expect(stranger.message(text)).to_be_visible()
    expect(stranger.draft).to_be_hidden()
    expect(stranger.page.get_by_role("button", name="Sign in")).to_be_visible()


def test_a_wrong_password_or_a_taken_nickname_is_explained(visit, ann):
    visitor = visit()
    visitor.expected = re.compile("status of 40[19]")
    visitor.enter("Sign in", ann.nickname, "not the password")
    expect(visitor.page.get_by_role("alert")).to_contain_text("No account has this nickname and password")
    visitor.enter("Create account", ann.nickname)
    expect(visitor.page.get_by_role("alert")).to_contain_text("This nickname is taken")
    visitor.enter("Sign in", ann.nickname, ann.password)
    expect(visitor.draft).to_be_focused()


def test_authors_edit_their_own_messages_and_others_see_it(visit, text):
    author, reader = visit().register(), visit().register()
    author.say(f"first {text}")
    expect(reader.message(f"first {text}")).to_be_visible()

    author.edit(f"first {text}", "never saved", "Cancel")
    author.edit(f"first {text}", f"second {text}", "Save")
    for visitor in (author, reader):
        expect(visitor.message(f"second {text}")).to_be_visible()
        expect(visitor.message(text)).to_have_count(1)
    reader.message(f"second {text}").hover()
    expect(reader.message(f"second {text}").get_by_role("button", name="Edit")).to_have_count(0)


def test_markdown_is_shown_and_a_script_is_only_text(visit, text):
    author, reader = visit().register(), visit()
    author.say(
        f"**bold {text}** and `code`\n\n<script>window.hacked = 1</script>\n<img src=x onerror='window.hacked = 1'>"
    )
    message = reader.message(text)
    expect(message.locator("strong", has_text=f"bold {text}")).to_be_visible()
    expect(message.locator("code")).to_have_text("code")
    expect(message).to_contain_text("<script>window.hacked = 1</script>")
    expect(message.locator("script, img")).to_have_count(0)
    assert reader.measure("typeof window.hacked") == author.measure("typeof window.hacked") == "undefined"


def test_the_preview_of_a_linked_page_appears(visit, site, text):
    author, reader = visit().register(), visit()
    author.say(f"{text} {site.add('/page', 'The title', 'The description')}")
    for visitor in (author, reader):
        preview = visitor.message(text).locator("blockquote")
        expect(preview).to_contain_text("The title", timeout=10_000)
        expect(preview).to_contain_text("The description")


def test_the_session_is_kept_over_a_reload_and_ends_with_signing_out(visit, text):
    visitor = visit().register()
    visitor.draft.fill(text)
    visitor.page.reload()
    expect(visitor.page.locator("#account-name")).to_have_text(visitor.nickname)
    expect(visitor.draft).to_have_value(text)

    visitor.page.locator("#account summary").click()
    visitor.page.get_by_role("button", name="Sign out", exact=True).click()
    expect(visitor.page.get_by_role("button", name="Sign in")).to_be_visible()
    visitor.page.reload()
    expect(visitor.page.get_by_role("button", name="Sign in")).to_be_visible()


def test_signing_out_everywhere_is_seen_at_once_and_ends_the_other_session(visit, wait_until_refused):
    here, there, observer = visit().register(), visit(), visit()
    there.enter("Sign in", here.nickname)
    expect(there.draft).to_be_focused()
    expect(observer.person("Online", here.nickname)).to_be_visible()

    there.expected = REFUSED
    here.page.locator("#account summary").click()
    here.page.get_by_role("button", name="Sign out everywhere").click()
    expect(observer.person("Away", here.nickname)).to_be_visible()
    expect(here.page.get_by_role("button", name="Sign in")).to_be_visible()

    wait_until_refused(there.token)
    there.page.locator("#hood summary").click()
    there.page.get_by_role("button", name="Reload messages").click()
    expect(there.page.get_by_text("Your session has expired")).to_be_visible()


def test_a_revoked_token_leads_to_the_sign_in_form_and_the_draft_is_kept(visit, ann, text, wait_until_refused):
    visitor = visit()
    visitor.enter("Sign in", ann.nickname, ann.password)
    visitor.draft.fill(text)
    visitor.expected = REFUSED
    ann.delete("/api/tokens?all=1")
    wait_until_refused(visitor.token)

    visitor.page.locator("#hood summary").click()
    visitor.page.get_by_role("button", name="Reload messages").click()
    expect(visitor.page.get_by_text("Your session has expired")).to_be_visible()
    expect(visitor.page.get_by_label("Nickname")).to_have_value(ann.nickname)
    visitor.enter("Sign in", ann.nickname, ann.password)
    expect(visitor.draft).to_have_value(text)


def test_a_message_refused_with_its_token_is_sent_after_signing_in_again(visit, ann, text, wait_until_refused):
    # The token is revoked when the message is on its way: the page has not learned of it from a request of its own.
    def intercept(to_page) -> None:
        def pass_on(frame: str) -> None:
            if text in frame and not visitor.expected:
                visitor.expected = REFUSED
                ann.delete("/api/tokens?all=1")
                wait_until_refused(token)
            to_server.send(frame)

        to_server = to_page.connect_to_server()
        to_page.on_message(pass_on)

    visitor = visit()
    visitor.context.route_web_socket("**/socket.io/**", intercept)
    visitor.page.reload()
    visitor.enter("Sign in", ann.nickname, ann.password)
    expect(visitor.draft).to_be_focused()
    visitor.wait_for_socket()
    token = visitor.token
    visitor.say(text)
    expect(visitor.page.get_by_text("Your session has expired")).to_be_visible()
    expect(visitor.page.get_by_role("list", name="On their way")).to_contain_text("Not sent")
    expect(visitor.message(text)).to_have_count(0)

    visitor.enter("Sign in", ann.nickname, ann.password)
    expect(visitor.message(text)).to_have_count(1)
    expect(visitor.page.locator("#outbox li")).to_have_count(0)


def test_the_page_survives_the_death_of_the_instance_that_held_its_socket(stage, visit, ann, text):
    visitor = visit().register()
    visitor.wait_for_socket()
    visitor.expected = LOST
    visitor.context.route("**/socket.io/**", lambda route: route.abort())  # else it is back before anybody sees it
    stage.run("kill", visitor.socket_instance())
    expect(visitor.banner).to_contain_text("No live connection", timeout=10_000)

    ann.say(f"meanwhile {text}")
    expect(visitor.message(f"meanwhile {text}")).to_be_visible(timeout=10_000)
    visitor.say(f"over HTTP {text}")
    expect(visitor.message(f"over HTTP {text}")).to_be_visible()

    visitor.context.unroute("**/socket.io/**")
    expect(visitor.banner).to_be_empty(timeout=10_000)
    visitor.wait_for_socket()
    ann.say(f"afterwards {text}")
    expect(visitor.message(f"afterwards {text}")).to_be_visible()
    expect(visitor.message(text)).to_have_count(3)


def test_a_page_that_was_cut_off_from_everything_catches_up(stage, visit, ann, text):
    visitor = visit().register()
    visitor.wait_for_socket()
    visitor.expected = LOST
    visitor.context.route("**/*", lambda route: route.abort())
    stage.run("kill", visitor.socket_instance())
    expect(visitor.banner).to_contain_text("The server cannot be reached", timeout=10_000)

    ann.say(text)
    assert visitor.message(text).count() == 0
    visitor.context.unroute("**/*")
    expect(visitor.message(text)).to_have_count(1, timeout=10_000)
    expect(visitor.banner).to_be_empty()


@pytest.mark.parametrize("seconds", [35, 60], ids=["for_35_s", "for_a_minute"])
def test_open_pages_go_on_after_the_whole_stage_was_suspended(stage, visit, text, print_figure, seconds):
    """35 s are longer than any timeout of HAProxy's tunnels, gunicorn and Socket.IO."""
    one, other = visit().register(), visit().register()
    for visitor in (one, other):
        visitor.wait_for_socket()
        visitor.expected = LOST
    with suspended(stage):
        expect(one.banner).not_to_be_empty(timeout=1000 * seconds)
        one.say(text)
        time.sleep(seconds)  # the subject of this test
    resumed = time.monotonic()

    for visitor in (one, other):
        expect(visitor.message(text)).to_be_visible(timeout=5_000)
        expect(visitor.banner).to_be_empty(timeout=5_000)
    print_figure(f"everything suspended for {seconds} s; pages are whole {time.monotonic() - resumed:.1f} s after that")
    assert time.monotonic() - resumed < 5
    for visitor in (one, other):
        visitor.wait_for_socket()
    other.say(f"afterwards {text}")
    expect(one.message(f"afterwards {text}")).to_be_visible()


def test_a_message_waits_for_the_server_and_is_sent_when_it_is_back(visit, text):
    visitor = visit().register()
    visitor.wait_for_socket()
    visitor.expected = LOST
    away = {"status": 503, "json": {"error": "Nothing answers.", "request_id": "x"}}
    visitor.context.route("**/api/messages*", lambda route: route.fulfill(**away))
    visitor.context.route("**/socket.io/**", lambda route: route.abort())
    visitor.page.reload()
    on_their_way = visitor.page.get_by_role("list", name="On their way")
    for message in (f"sent {text}", f"discarded {text}"):
        visitor.say(message)
        expect(on_their_way.get_by_role("listitem").filter(has_text=message)).to_contain_text("Waiting for the server")
    visitor.page.clock.install()
    visitor.page.clock.run_for(20_000)  # ms: several attempts
    expect(on_their_way).to_contain_text("Waiting for the server. Nothing answers.")
    on_their_way.get_by_role("listitem").filter(has_text="discarded").get_by_role("button", name="Discard").click()

    visitor.context.unroute("**/api/messages*")
    visitor.page.clock.run_for(5_000)
    expect(visitor.message(f"sent {text}")).to_have_count(1, timeout=10_000)
    expect(on_their_way.get_by_role("listitem")).to_have_count(0)
    expect(visitor.message(f"discarded {text}")).to_have_count(0)


def test_the_page_says_which_part_is_missing_and_since_when(visit):
    visitor = visit().register()
    visitor.wait_for_socket()
    visitor.expected = LOST
    away = {"status": 503, "json": {"error": "Nothing answers.", "request_id": "x"}}
    visitor.context.route("**/api/messages*", lambda route: route.fulfill(**away))
    visitor.page.reload()
    expect(visitor.banner).to_have_text(
        re.compile(r"The server cannot read the messages \(since \d+:\d\d:\d\d\). Trying again…"), timeout=10_000
    )
    expect(visitor.page.locator("#hood-transport")).not_to_have_text("no socket")
    visitor.context.unroute("**/api/messages*")
    expect(visitor.banner).to_be_empty(timeout=10_000)


def test_an_account_is_created_although_the_server_is_busy_at_first(visit):
    visitor = visit()
    visitor.expected = LOST
    busy = {"status": 503, "headers": {"Retry-After": "1"}, "json": {"error": "Too many people.", "request_id": "x"}}
    for path in ("**/api/users", "**/api/tokens"):
        visitor.context.route(path, lambda route: route.fulfill(**busy), times=1)
    visitor.enter("Create account", f"user-{secrets.token_hex(4)}")
    expect(visitor.page.locator("#sign-in-error")).to_have_text("Too many people. (Trying again.)")
    expect(visitor.draft).to_be_focused()
    expect(visitor.page.locator("#sign-in-error")).to_be_empty()


def test_signing_out_with_a_token_that_was_revoked_elsewhere_says_nothing_false(visit, ann, wait_until_refused):
    visitor = visit()
    visitor.enter("Sign in", ann.nickname, ann.password)
    expect(visitor.draft).to_be_focused()
    visitor.expected = re.compile(f"{REFUSED.pattern}|{LOST.pattern}")
    token = visitor.token

    def let_only_deletes_pass(route) -> None:
        route.continue_() if route.request.method == "DELETE" else route.abort()

    visitor.context.route(re.compile("/socket.io/|/api/"), let_only_deletes_pass)  # else the page learns of it at once
    visitor.page.reload()
    ann.delete("/api/tokens?all=1")
    wait_until_refused(token)
    visitor.page.locator("#account summary").click()
    visitor.page.get_by_role("button", name="Sign out", exact=True).click()
    expect(visitor.page.locator("#sign-in-note")).to_have_text("You have signed out. You can go on reading.")
    expect(visitor.banner).not_to_contain_text("lives on")


def test_the_probes_messages_take_one_line_and_nobody_is_told_of_them(url, visit, ann, text):
    visitor = visit()
    expect(visitor.page.locator("#conversation-note")).to_be_empty()
    probe = Client(url)
    probe.nickname, probe.password = f"probe-{secrets.token_hex(4)}", PASSWORD
    assert probe.post("/api/users", json={"nickname": probe.nickname, "password": PASSWORD}).status_code == 201
    probe.sign_in()
    ann.say(f"before {text}")
    for number in range(30):
        probe.say(f"{number} of the probe {text}")
    ann.say(f"after {text}")
    expect(visitor.message(f"after {text}")).to_be_in_viewport()
    expect(visitor.message(f"before {text}")).to_be_in_viewport()
    expect(visitor.page.locator(".probes").last).to_have_text("Messages of ./workshop probe: 30")
    expect(visitor.message(f"of the probe {text}")).to_have_count(0)
    expect(visitor.person("Away", probe.nickname)).to_have_count(0)
    probe.http.close()


def test_under_the_hood_shows_the_instances_that_served(visit):
    visitor = visit()
    visitor.page.locator("#hood summary").click()
    requests = visitor.page.get_by_role("region", name="Last requests").get_by_role("row")
    path = visitor.page.get_by_role("cell", name="/api/messages", exact=True)
    reloads = requests.filter(has=path, has_text="200")
    for number in range(1, 4):
        expect(reloads).to_have_count(number)  # the first is from opening the page
        visitor.page.get_by_role("button", name="Reload messages").click()

    expect(reloads).to_have_count(4)
    assert visitor.page.locator("#hood-instances .chip").count() > 1


def test_everything_can_be_done_with_the_keyboard(visit, ann, text):
    visitor = visit()
    keyboard = visitor.page.keyboard
    for name in ("Skip to the conversation", "Skip to writing"):
        keyboard.press("Tab")
        expect(visitor.page.get_by_role("link", name=name)).to_be_focused()
    keyboard.press("Enter")
    keyboard.press("Tab")
    expect(visitor.page.get_by_label("Nickname")).to_be_focused()
    keyboard.type(ann.nickname)
    keyboard.press("Tab")
    keyboard.type(ann.password)
    keyboard.press("Enter")

    expect(visitor.draft).to_be_focused()
    keyboard.type(f"first {text}")
    keyboard.press("Enter")
    expect(visitor.message(f"first {text}")).to_be_visible()

    keyboard.press("ArrowUp")
    expect(visitor.page.get_by_label("Edited message")).to_be_focused()
    keyboard.press("Control+A")
    keyboard.type(f"second {text}")
    keyboard.press("Enter")
    expect(visitor.message(f"second {text}")).to_be_visible()


def test_with_20000_users_the_page_lists_all_who_are_online_and_more_of_the_others_on_demand(visit, ann, many):
    ann.put("/api/users/me")
    with many.database.begin() as connection:  # she has been online for longer than the others are away
        values = {"id": ann.id, "second": many.second - 1}
        connection.execute(sql("UPDATE users SET updated_at = :second WHERE id = :id"), values)
    visitor = visit()
    expect(visitor.person("Online", ann.nickname)).to_be_visible()
    expect(visitor.page.locator("#away-count")).to_have_text(re.compile(r"^\d{3}\+$"))
    visitor.page.get_by_role("button", name="Show more").click()
    expect(visitor.page.locator("#away-count")).to_have_text(re.compile(r"^(9\d\d|1000)\+$"))


def test_a_narrow_window_needs_no_scrolling_sideways(visit, text):
    visitor = visit(viewport=NARROW).register()
    visitor.say(f"{text} {'unbroken' * 40}\n\n```\n{'code ' * 60}\n```\n\n|{'a|' * 30}\n|{'-|' * 30}\n|{'cell|' * 30}")
    expect(visitor.message(text)).to_be_visible()
    visitor.page.locator("#hood summary").click()
    assert visitor.measure("document.documentElement.scrollWidth") <= NARROW["width"]
    assert visitor.measure("document.querySelector('#conversation').scrollWidth") <= NARROW["width"]

    participants = visitor.page.get_by_role("complementary", name="Participants")
    expect(participants).to_be_hidden()
    visitor.page.get_by_role("button", name="People").click()
    expect(participants).to_be_visible()
    expect(visitor.person("Online", visitor.nickname)).to_be_visible()
    assert visitor.measure("document.documentElement.scrollWidth") <= NARROW["width"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_follows_the_colour_scheme(visit, scheme):
    visitor = visit(color_scheme=scheme)
    expect(visitor.page.get_by_label("Nickname")).to_be_visible()
    bright, dark = ("backgroundColor", "color") if scheme == "light" else ("color", "backgroundColor")
    assert brightness(visitor, bright) > 200
    assert brightness(visitor, dark) < 80


def brightness(visitor: Visitor, style: str) -> float:
    """Return how bright a colour of the page's body is, from 0 to 255; painted, as it may be written in many ways."""
    return visitor.page.evaluate(
        """style => {
            const context = new OffscreenCanvas(1, 1).getContext("2d");
            context.fillStyle = getComputedStyle(document.body)[style];
            context.fillRect(0, 0, 1, 1);
            const [red, green, blue] = context.getImageData(0, 0, 1, 1).data;
            return (red + green + blue) / 3;
        }""",
        style,
    )
