import click
from rich.console import Console
from rich.table import Table

from workshop import exercises
from workshop.exercises import Exercise

BREAKS = {"3h": (90, 10, 0), "1d": (90, 15, 60)}  # minutes at a stretch, minutes of a break, of the lunch break


@click.command("exercises", epilog="Example: ./workshop exercises --timetable 3h")
@click.option("--timetable", type=click.Choice(list(BREAKS)), help="What fits into a class of three hours, or a day.")
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
    """Print at which minute each exercise of a class begins, with the breaks."""
    table = Table(box=None)
    for heading in ("at", "", "exercise", "minutes"):
        table.add_column(heading)
    end = 0
    for at, number, title, minutes in timetable_of(everything, name):
        table.add_row(f"{at // 60}:{at % 60:02}", number, title, str(minutes))
        end = at + minutes
    Console().print(table)
    click.echo(f"{end // 60} h {end % 60} min, with breaks. What is left of the class is for demos and questions.")


def timetable_of(everything: list[Exercise], name: str) -> list[tuple[int, str, str, int]]:
    """Return the rows of a timetable: at which minute, the number (none for a break), the title, how many minutes."""
    stretch, pause, lunch = BREAKS[name]
    chosen = [one for one in everything if name == "1d" or one.timetable == name]
    half = sum(one.minutes for one in chosen) / 2
    rows, at, since, worked = [], 0, 0, 0
    for one in chosen:
        if since + one.minutes > stretch:
            is_lunch = lunch and worked >= half
            rows.append((at, "", "lunch" if is_lunch else "break", lunch if is_lunch else pause))
            at, since, lunch = at + rows[-1][-1], 0, 0 if is_lunch else lunch
        rows.append((at, one.number, one.title, one.minutes))
        at, since, worked = at + one.minutes, since + one.minutes, worked + one.minutes
    return rows
