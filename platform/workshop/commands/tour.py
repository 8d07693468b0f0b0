import shutil
from collections.abc import Iterator
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from workshop import serving, tour
from workshop.commands.diff import WIDEST
from workshop.files import write_where_asked
from workshop.tour import Station


@click.command("tour", epilog="Example: ./workshop tour 1")
@click.argument("number", metavar="[STATION]", required=False)
@click.option("--html", "file", metavar="FILE", type=click.Path(path_type=Path), help="Write all stations as one page.")
@click.option("--serve", "is_served", is_flag=True, help="Serve that page until Ctrl-C.")
@serving.port_option("tour")
def command(number: str | None, file: Path | None, is_served: bool, port: int | None) -> None:
    """Go through the three stages, station by station: why it is so, what it costs, the exercise that builds it.

    Without a station, list them.
    """
    if (file or is_served) and number:
        raise click.UsageError("The page has all stations: name a station, or a file.")
    if port is not None and not is_served:
        raise click.UsageError("--port is for --serve.")
    if is_served:
        announcement = "The tour is at {url}. Ctrl-C ends this."
        serving.serve_until_interrupted("tour", port, write_page, announcement)
    elif file:
        write_where_asked(file, page())
        click.echo(f"{file} is written: open it in a browser.")
    elif number:
        for line in lines(*tour.find(number)):
            click.echo(line)
    else:
        show_list()


def page() -> str:
    """Return all stations as one page, as HTML."""
    from workshop import lesson_page  # here, since the libraries that it needs take a while to import

    return lesson_page.page("tour.html.j2", parts=tour.parts())


def write_page(folder: Path) -> None:
    (folder / "index.html").write_text(page(), encoding="utf-8")


def show_list() -> None:
    table = Table(box=None)
    for heading in ("", "station", "exercise"):
        table.add_column(heading)
    for part in tour.parts():
        table.add_row("", f"[bold]{part.title}[/]")
        for station in part.stations:
            numbers = ", ".join(exercise.number for exercise in station.exercises)
            table.add_row(str(station.number), station.title, numbers)
    Console().print(table)
    click.echo("Begin with: ./workshop tour 1   All of it as a page: ./workshop tour --html tour.html")


def lines(station: Station, following: Station | None) -> Iterator[str]:
    """Yield what a terminal shows of a station."""
    width = min(WIDEST, shutil.get_terminal_size().columns)
    yield click.style(f"{station.number} {station.title}", bold=True, underline=True)
    yield from ("", click.wrap_text(f"Why: {station.why}", width))
    yield from ("", click.wrap_text(f"What it costs: {station.cost}", width))
    summary = station.chapter.summary() if station.chapter else {"to read": station.files}
    for heading, files in summary.items():
        yield from ("", click.style(heading, bold=True), *(f"  {file}" for file in files))
    yield from ("", f"Look:      {station.look}")
    for exercise in station.exercises:
        yield f"Exercise:  ./workshop exercise start {exercise.number}   {exercise.title}, {exercise.minutes} minutes"
    yield f"Go on:     ./workshop tour {following.number}   {following.title}" if following else "This was the tour."
