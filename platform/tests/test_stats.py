"""The first way to microservices, only new parts as services: an optional one, in another language, beside stage 0."""

import re
import time
from contextlib import closing

import psutil
import pytest
import requests
from contract import test_page
from contract.conftest import Client
from contract.test_page import LOST, Visitor
from playwright.sync_api import expect

browser = test_page.browser

NUMBERS = re.compile(r"^\d+ messages? a minute · \d+ online$")
BACK_WITHIN = 5  # seconds after a kill


@pytest.fixture(scope="module")
def with_stats(workshop_of_module):
    workshop_of_module.up("--with", "stats")
    return workshop_of_module


@pytest.fixture
def visit(browser):
    """Open a stage's page; what goes wrong in it fails the test in the end."""
    visitors = []

    def open_page(workshop) -> Visitor:
        visitors.append(Visitor(browser, workshop.url))
        return visitors[-1]

    yield open_page
    for visitor in visitors:
        visitor.context.close()
    assert [visitor.problems for visitor in visitors] == [[] for _ in visitors]


def ask(url: str, **headers: str) -> requests.Response:
    return requests.get(f"{url}/api/stats", headers=headers, timeout=5)


def look(visitor: Visitor) -> None:
    """Have the page ask now instead of half a minute later, as it does when its window is looked at again."""
    visitor.page.wait_for_timeout(1100)  # until then the last answer serves everybody
    visitor.measure("document.dispatchEvent(new Event('visibilitychange'))")


def test_an_optional_service_that_nobody_asked_for_is_not_there_and_nothing_misses_it(stage, visit):
    answer = ask(stage.url)
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["X-Served-By"].startswith("monolith_")
    assert "stats" not in [service["name"] for service in stage.status()["services"]]
    assert "has no service 'stats'" in stage.run("scale", "stats=2", expect=1).stderr
    again = ("up", "stage0", "--port", stage.url.split(":")[2], "--with", "stats")
    assert (
        "is up already, without stats. Add it with `./workshop join stage2-microservices/stats --name stats`."
        in stage.run(*again, expect=1).stderr
    )

    visitor = visit(stage)
    visitor.wait_for_socket()
    look(visitor)
    expect(visitor.page.locator("#stats")).to_be_hidden()
    expect(visitor.page.locator("#requests")).not_to_contain_text("/api/stats")


def test_what_is_no_optional_service_is_refused_and_nothing_is_started(workshop):
    refused = workshop.run("up", "stage0", "--with", "stats", "--with", "monolith", expect=1)
    assert refused.stderr == "Error: stage0 has no optional service 'monolith': there is stats.\n"
    assert workshop.processes() == []


def test_it_counts_what_the_application_tells_everybody(with_stats, until):
    url = with_stats.url
    client = Client(url).register()
    with closing(client.http):
        for text in ("one", "two"):
            client.say(text)
        client.put("/api/users/me")
        until(lambda: ask(url).json() == {"messages_per_minute": 2, "people_online": 1}, 5, "the right numbers")
    assert ask(url).headers["X-Served-By"].startswith("stats_v1_")
    assert requests.post(f"{url}/api/stats", timeout=5).status_code == 405


def test_one_request_id_stands_in_the_logs_of_both(with_stats, until):
    def asked() -> bool:
        ask(with_stats.url, **{"X-Request-ID": "followed"})
        return "followed" in with_stats.run("logs", "monolith").stdout

    until(asked, 10, "an answer that was computed for this request")
    assert "followed stats: GET /api/stats 200" in with_stats.run("logs", "stats").stdout


def test_the_page_shows_the_numbers_while_the_service_is_there_and_goes_on_without_it(with_stats, visit):
    visitor = visit(with_stats).register()
    visitor.expected = LOST
    shown = visitor.page.locator("#stats")
    expect(shown).to_have_text(NUMBERS)
    expect(visitor.page.locator("#hood-instances")).to_contain_text("stats_v1_")

    with_stats.run("stop", "stats")
    look(visitor)
    expect(shown).to_be_hidden()
    visitor.say("who misses it?")
    expect(visitor.message("who misses it?")).to_be_visible()
    expect(visitor.banner).to_be_empty()

    with_stats.run("start", "stats")
    look(visitor)
    expect(shown).to_have_text(NUMBERS)


def test_killed_it_is_back_soon(with_stats, until, print_figure):
    (before,) = with_stats.instances("stats")
    # It is Node.js itself that the sidecar has started, not a parent of it that would keep signals to itself.
    assert psutil.Process(before["pid"]).exe().endswith("/bin/node")
    with_stats.run("kill", "stats")
    killed = time.monotonic()
    until(lambda: ask(with_stats.url).status_code == 200, BACK_WITHIN, "an answer")
    print_figure(f"the service in Node.js killed → an answer again: {time.monotonic() - killed:.1f} s")
    assert [i["pid"] for i in with_stats.instances("stats")] != [before["pid"]]


def test_the_next_up_knows_nothing_of_it(with_stats):
    with_stats.run("down")
    with_stats.up()
    assert ask(with_stats.url).status_code == 204
    assert not [name for name in with_stats.names() if "server.js" in name]
