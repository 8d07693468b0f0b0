"""The deck in a real browser, without a network, and what its terminals show, typed again."""

import os
import re
import signal
import subprocess

import pytest
import requests
from exercises.steps import holds
from tests import browsers

from workshop import deck
from workshop.commands.slides import served
from workshop.waiting import wait_until

SIZE = {"width": 1280, "height": 720}
TERMINALS = sorted((deck.SOURCES / "terminal").glob("*.txt"))
DRAWINGS = sorted((deck.SOURCES / "drawings").glob("*.svg"))
LOGGED_WITHIN = 5  # seconds
COMMAND_TIMEOUT = 60  # seconds for a command on a slide
# Returns what of the current slide lies outside it, or is cut off in its own box.
OUTSIDE = """() => {
  const all = [...Reveal.getCurrentSlide().querySelectorAll("*")].filter(element => !element.closest("aside"));
  return all.filter(element => {
    const box = element.getBoundingClientRect();
    const isCut = getComputedStyle(element).display !== "inline" && element.scrollWidth > element.clientWidth + 1;
    return box.right > innerWidth + 1 || box.bottom > innerHeight + 1 || isCut;
  }).map(element => element.textContent.trim().slice(0, 60) || element.outerHTML);
}"""
MISSING = """() => [...Reveal.getCurrentSlide().querySelectorAll("img")]
  .filter(image => !image.complete || !image.naturalWidth).map(image => image.src)"""
# Returns the texts of a drawing that do not lie inside it.
CUT_OFF = """() => {
  const { width, height } = document.documentElement.viewBox.baseVal;
  return [...document.querySelectorAll("text")].filter(text => {
    const box = text.getBBox();
    return box.x < 0 || box.y < 0 || box.x + box.width > width || box.y + box.height > height;
  }).map(text => text.textContent);
}"""


@pytest.fixture(scope="module")
def browser():
    with browsers.browser() as chromium:
        yield chromium


@pytest.fixture
def open_deck(browser):
    """Open the deck of a class; return the page, and everything that it has asked for or complained of."""
    opened = []

    def open_it(url: str, **options):
        page = browser.new_page(viewport=SIZE, **options)
        opened.append(page)
        asked_for, complaints = [], []
        page.on("request", lambda request: asked_for.append(request.url))
        page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url}"))
        page.on("response", lambda r: complaints.append(f"{r.status}: {r.url}") if r.status >= 400 else None)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(url)
        page.wait_for_function("window.Reveal && Reveal.isReady()")
        return page, asked_for, complaints

    yield open_it
    for page in opened:
        page.close()


@pytest.mark.parametrize(("name", "scheme"), [("1d", "light"), ("1d", "dark"), ("3h", "light")])
def test_every_slide_fits_and_asks_for_nothing_outside(open_deck, name, scheme, print_figure):
    with served(name) as (url, _):
        page, asked_for, complaints = open_deck(url, color_scheme=scheme)
        slides = deck.slides(name)
        assert page.evaluate("Reveal.getTotalSlides()") == len(slides)
        wrong = {}
        for number, slide in enumerate(slides):
            page.evaluate("number => Reveal.slide(number)", number)
            page.wait_for_function("[...document.images].every(image => image.complete)")
            if found := page.evaluate(OUTSIDE) + page.evaluate(MISSING):
                wrong[f"{number + 1}, {slide.part}, {slide.heading}"] = found
        assert not wrong
        assert not complaints
        assert [request for request in asked_for if not request.startswith((url, "data:"))] == []
    print_figure(f"slides: {len(slides)} seen in {scheme}, {sum(s.seconds for s in slides) / 60:g} minutes")


@pytest.mark.parametrize("file", DRAWINGS, ids=lambda file: file.stem)
def test_no_text_of_a_drawing_is_cut_off(browser, file):
    page = browser.new_page()
    page.goto(file.as_uri())
    assert page.evaluate(CUT_OFF) == []
    page.close()


def test_the_speaker_sees_the_notes_and_the_clock(open_deck):
    with served("1d") as (url, _):
        page, _, complaints = open_deck(url)
        with page.expect_popup() as popup:
            page.keyboard.press("s")
        view = popup.value
        notes = deck.slides("1d")[0].text.partition("Note:")[2].split()
        view.wait_for_function(
            "words => words.every(word => document.body.innerText.includes(word))",
            arg=[w for w in notes if w.isalpha()],
        )
        view.locator(".pacing").wait_for()  # the minutes of each slide are known
        assert not complaints
        view.close()


@pytest.mark.parametrize("name", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "[::2]"])
def test_a_page_that_reaches_the_slides_by_a_name_of_its_own_is_refused(name):
    with served("3h") as (url, _):
        port = url.rstrip("/").rpartition(":")[2]
        for good in ("127.0.0.1", f"localhost:{port}", "LOCALHOST", "[::1]"):
            assert requests.get(url, headers={"Host": good}, timeout=5).status_code == 200
        for method in ("GET", "HEAD"):
            assert requests.request(method, url, headers={"Host": name}, timeout=5).status_code == 421


def test_a_slide_that_is_too_long_is_found(open_deck):
    with served("1d") as (url, _):
        page, _, _ = open_deck(url)
        assert not page.evaluate(OUTSIDE)
        page.evaluate("Reveal.getCurrentSlide().insertAdjacentHTML('beforeend', '<p>too long</p>'.repeat(20))")
        assert "too long" in page.evaluate(OUTSIDE)
        page.evaluate("Reveal.getCurrentSlide().insertAdjacentHTML('beforeend', '<img src=\"nowhere.svg\">')")
        page.wait_for_function("[...document.images].every(image => image.complete)")
        assert page.evaluate(MISSING) == [f"{url}nowhere.svg"]


@pytest.mark.usefixtures("browser")  # or a reason to be skipped
def test_the_pdf_has_a_page_for_each_slide(workshop, tmp_path):
    file = tmp_path / "slides.pdf"
    assert f"{file} is written" in workshop.run("slides", "--timetable", "3h", "--pdf", str(file)).stdout
    assert len(re.findall(rb"/Type /Page\b", file.read_bytes())) == len(deck.slides("3h"))


@pytest.mark.parametrize("interrupt", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_slides_are_served_until_interrupted(workshop, tmp_path, monkeypatch, interrupt):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    process = workshop.popen("slides", "--port", "0")
    try:
        url = re.search(r"http://127\.0\.0\.1:\d+/", process.stdout.readline())[0]
        assert requests.get(url, timeout=5).ok
        refused = workshop.run("slides", "--port", url.split(":")[2].strip("/"), expect=1)
        assert "choose another one with --port" in refused.stderr
        process.send_signal(interrupt)
        assert process.wait(10) == 0
        assert list(tmp_path.iterdir()) == []
    finally:
        process.kill()
        process.communicate()


def test_a_pdf_that_cannot_be_written_is_refused(workshop, tmp_path):
    for file in (tmp_path, tmp_path / "missing" / "slides.pdf", tmp_path / ("x" * 300)):
        assert "cannot be written" in workshop.run("slides", "--pdf", str(file), expect=1).stderr


@pytest.mark.parametrize("file", TERMINALS, ids=lambda file: file.stem)
def test_what_a_slide_shows_of_a_terminal_is_what_one_sees(workshop, file):
    stage, _, transcript = file.read_text().partition("\n")
    workshop.stage = stage
    url = workshop.up()["url"].rstrip("/")
    commands = re.findall(r"(?m)^\$ (.*)\n((?:(?!\$ ).*\n?)*)", transcript)
    assert commands
    for command, shown in commands:
        command = command.replace("http://127.0.0.1:8080", url)
        if command.startswith("./workshop logs"):  # an answer comes before the line about it
            wait_until(lambda shown=shown, command=command: holds(typed(workshop, command), shown), LOGGED_WITHIN)
        seen = typed(workshop, command)
        assert holds(seen, shown), f"$ {command}\n{seen}"


def typed(workshop, command: str) -> str:
    """Type a command at the repository's root; return what comes, on a terminal of a slide's width."""
    environment = os.environ | {"WORKSHOP_RUN_DIR": str(workshop.run_folder), "COLUMNS": "84"}
    result = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=workshop.repository,
        env=environment,
        text=True,
        timeout=COMMAND_TIMEOUT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return result.stdout
