import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from workshop import binaries, chromium, deck, ports, serving
from workshop.errors import WorkshopError
from workshop.files import refuse_unwritable, write_where_asked

READY = 30_000  # milliseconds until the browser has laid out the slides


@click.command("slides", epilog="Example: ./workshop slides --timetable 3h")
@click.option("--timetable", type=click.Choice(deck.CLASSES), default="1d", help="Whose slides; a day has them all.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help=f"Where to serve them, on loopback; default {ports.DEFAULTS['slides']}, if it is free; 0 takes a free one.",
)
@click.option("--pdf", "file", metavar="FILE", type=click.Path(path_type=Path), help="Print them into FILE instead.")
def command(timetable: str, port: int | None, file: Path | None) -> None:
    """Serve the slides until Ctrl-C, without a network. In the browser, S opens the speaker's view with the notes."""
    if file:
        print_pdf(file, timetable)
        return
    try:
        with served(timetable, ports.choose("slides", port, click.echo)) as (url, thread):
            click.echo(f"The slides are at {url} (S: speaker's view, F: full screen, ?: all keys). Ctrl-C ends this.")
            thread.join()
    except KeyboardInterrupt:
        click.echo()


@contextmanager
def served(timetable: str, port: int = 0) -> Iterator[tuple[str, threading.Thread]]:
    """Serve the deck while the context lasts; yield what `serving.served` does."""
    with tempfile.TemporaryDirectory(prefix="workshop-slides-") as folder:
        deck.write(Path(folder), timetable)
        with serving.served(Path(folder), port) as address_and_thread:
            yield address_and_thread


def print_pdf(file: Path, timetable: str) -> None:
    """Print the deck into a file, a slide on each page. Raises WorkshopError when that can't be done."""
    from playwright.sync_api import Error, sync_playwright  # here, since it takes a while to import

    refuse_unwritable(file)
    if problem := chromium.problem():
        raise WorkshopError(f"The slides cannot be printed. {problem}.")
    try:
        with served(timetable) as (url, _), sync_playwright() as playwright:
            page = playwright.chromium.launch(executable_path=binaries.find("chromium")).new_page()
            page.goto(f"{url}?print-pdf")
            page.wait_for_selector(".pdf-page", timeout=READY)
            pdf = page.pdf(prefer_css_page_size=True, print_background=True)
    except Error as error:
        raise WorkshopError(f"Chromium could not print the slides: {error.message.splitlines()[0]}") from None
    write_where_asked(file, pdf)
    click.echo(f"{file} is written.")
