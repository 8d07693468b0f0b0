import click
from rich.console import Console
from rich.table import Table

from workshop import deck, exercises
from workshop.exercises import Exercise


@click.command("exercises", epilog="Example: ./workshop exercises --timetable 3h")
@click.option("--timetable", type=click.Choice(deck.CLASSES), help="What fits into a class of three hours, or a day.")
def command(timetable: str | None) -> None:
    """List the exercises, how far you are, and which one is next."""
    everything = exercises.all_of_them()
    if timetable:
        show_timetable(everything, timetable)
        return
    passed = {number: entry["passed"] for number, entry in exercises.progress().items() if "passed" in entry}
    following = next((one for one in everything if one.number not in passed), None)
    table = Table(box=None)
    for heading in ("", "", "exercise", "minutes", "needs", ""):
        table.add_column(heading)
    part = None
    for one in everything:
        if one.part != part:
            part = one.part
            table.add_row("", "", f"[bold]{exercises.PARTS[part]}[/]")
        state = f"passed, {passed[one.number]}" if one.number in passed else "begun" if one.is_started else ""
        table.add_row("▶" if one is following else "", one.number, one.title, str(one.minutes), one.needs, state)
    Console().print(table)
    click.echo(f"{sum(one.number in passed for one in everything)} of {len(everything)} passed.")
    if following:
        click.echo(f"Next: ./workshop exercise {'check' if following.is_started else 'start'} {following.number}")


def show_timetable(everything: list[Exercise], name: str) -> None:
    """Print what a class does when, as the slides have it: talk and demonstrations, exercises, breaks."""
    titles = {one.number: one.title for one in everything}
    table = Table(box=None)
    for heading in ("at", "", "", "minutes"):
        table.add_column(heading)
    at = 0
    for part, block, minutes in deck.timetable(name):
        number, what = (block, titles[block]) if block in titles else ("", block.lower() or f"slides: {part}")
        table.add_row(f"{at // 60}:{at % 60:02}", number, what, str(minutes))
        at += minutes
    Console().print(table)
    click.echo(f"{at // 60} h {at % 60} min. The slides of this class: ./workshop slides --timetable {name}")
