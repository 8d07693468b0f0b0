from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from threading import Thread

import click

from workshop import binaries, chromium, deck, serving
from workshop.errors import WorkshopError
from workshop.files import refuse_unwritable, write_where_asked

READY = 30_000  # milliseconds until the browser has laid out the slides


@click.command("slides", epilog="Example: ./workshop slides --timetable 3h")
@click.option("--timetable", type=click.Choice(deck.CLASSES), default="1d", help="Whose slides; a day has them all.")
@serving.port_option("slides")
@click.option("--pdf", "file", metavar="FILE", type=click.Path(path_type=Path), help="Print them into FILE instead.")
def command(timetable: str, port: int | None, file: Path | None) -> None:
    """Serve the slides until Ctrl-C, without a network. In the browser, S opens the speaker's view with the notes."""
    if file:
        print_pdf(file, timetable)
    else:
        announcement = "The slides are at {url} (S: speaker's view, F: full screen, ?: all keys). Ctrl-C ends this."
        serving.serve_until_interrupted("slides", port, partial(deck.write, timetable=timetable), announcement)


def served(timetable: str) -> AbstractContextManager[tuple[str, Thread]]:
    """Serve the deck while the context lasts: see serving.served."""
    return serving.served(partial(deck.write, timetable=timetable))


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
