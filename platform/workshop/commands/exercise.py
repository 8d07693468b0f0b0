import datetime
import os
import sys
import time
from pathlib import Path

import click

from workshop import checking, exercises, jump, state
from workshop.errors import WorkshopError
from workshop.exercises import Exercise, shown
from workshop.ports import PUBLIC_PORT
from workshop.verdict import PASSED, WRONG

POLL = 0.5  # seconds between two looks at the files, by size and time: a folder shared with a VM's host sends no events


class Number(click.ParamType):
    name = "number"

    def convert(self, value: str, parameter, context) -> Exercise:
        try:
            return exercises.find(value)
        except WorkshopError as error:
            self.fail(error.message, parameter, context)


one = click.argument("exercise", metavar="NN", type=Number())


@click.group("exercise", epilog="Example: ./workshop exercise start 01")
def command() -> None:
    """Work on exercise NN: start, check, watch, hint, solution, reset, jump."""


@command.command(epilog="Example: ./workshop exercise start 01")
@one
def start(exercise: Exercise) -> None:
    """Get the files of exercise NN, in work/."""
    exercises.start(exercise)
    introduce(exercise)
    if sentence := jump.what_is_missing(exercise):
        click.echo(sentence)


@command.command(epilog="Example: ./workshop exercise check 01")
@one
@click.option("-v", "--verbose", is_flag=True, help="Show all that the check has printed, with the traceback.")
def check(exercise: Exercise, verbose: bool) -> None:
    """Check your work. Exits with 0 when it passes, 1 when it does not yet, 2 when it cannot be checked."""
    sys.exit(report(exercise, verbose))


@command.command(epilog="Example: ./workshop exercise watch 01")
@one
def watch(exercise: Exercise) -> None:
    """Check your work again whenever you save a file, until it passes. Ctrl-C ends it."""
    while True:
        before = snapshot(exercise)
        if report(exercise, verbose=False) == 0:
            return
        # What the check itself has written there is no reason for another one.
        before = snapshot(exercise) | {
            file: state for file, state in before.items() if Path(file).name in exercise.files
        }
        click.echo("\nWaiting for you to save a file; Ctrl-C ends this.")
        while snapshot(exercise) == before:
            time.sleep(POLL)
        click.clear()


@command.command(epilog="Example: ./workshop exercise hint 04, and again for the next one; hint 04 1 for the first")
@one
@click.argument("level", metavar="[K]", type=int, required=False)
def hint(exercise: Exercise, level: int | None) -> None:
    """Show the next hint, or hint K once more."""
    hints = exercise.hints()
    read = exercises.progress().get(exercise.number, {}).get("hints", 0)
    following = min(read + 1, len(hints))
    level = following if level is None else level
    if not 1 <= level <= len(hints):
        raise WorkshopError(f"{exercise.name} has hints 1 to {len(hints)}, and no hint {level}.")
    if level > following:
        raise WorkshopError(f"One at a time: hint {following} comes before hint {level}.")
    click.echo(f"Hint {level} of {len(hints)}\n\n{state.with_real_ports(hints[level - 1])}")
    if level > read:
        exercises.enter(exercise, hints=level)
    if level == len(hints):
        click.echo(f"\nThat was the last one: `./workshop exercise solution {exercise.number}` shows an answer.")


@command.command(epilog="Example: ./workshop exercise solution 04")
@one
@click.option("--yes", is_flag=True, help="Do not ask, even if you have not passed.")
def solution(exercise: Exercise, yes: bool) -> None:
    """Show an answer."""
    if not yes and not exercises.is_passed(exercise):
        click.confirm(f"You have not passed {exercise.name} yet. Show the answer all the same?", abort=True)
    for name in exercise.files:
        file = exercise.folder / "solution" / name
        click.echo(f"--- {shown(file)}\n{file.read_text()}")


@command.command(epilog="Example: ./workshop exercise reset 04")
@one
def reset(exercise: Exercise) -> None:
    """Begin anew with the starter's files; yours are kept, and it says where."""
    with exercises.alone():
        if backup := exercises.back_up(exercise):
            click.echo(f"Your files are in {shown(backup)}.")
        exercises.start(exercise)
    introduce(exercise)


@command.command("jump", epilog="Example: ./workshop exercise jump 12, or jump 12 --keep-files to go on with your own")
@one
@click.option("--keep-files", is_flag=True, help="Keep your files and the repository: only bring up the stage.")
def jump_(exercise: Exercise, keep_files: bool) -> None:
    """Bring everything to where exercise NN begins: the repository, the running stage, its data, your files.

    The command puts aside what was there, and says where it is and how to get it back.
    """
    with exercises.alone():
        jump.to(exercise, keep_files, click.echo)
    introduce(exercise)


def introduce(exercise: Exercise) -> None:
    click.echo(f"{exercise.name}, about {exercise.minutes} minutes")
    click.echo(f"  read   {shown(exercise.folder)}/README.md")
    if (address := f"localhost:{PUBLIC_PORT}") != (real := state.with_real_ports(address)):
        click.echo(f"         (your stage is at {real}: use that where it says {address})")
    for name in exercise.files:
        click.echo(f"  edit   {shown(exercise.work)}/{name}")
    click.echo(
        f"  then   ./workshop exercise check {exercise.number}, or watch {exercise.number} for a check at each save"
    )


def report(exercise: Exercise, verbose: bool) -> int:
    """Check, print the verdict, enter it if it is passed; return the exit status."""
    click.echo(f"Checking, for {exercise.deadline} s at most …", err=True)
    verdict, printed = checking.check(exercise, lambda sentence: click.echo(sentence, err=True))
    click.echo("\n".join(verdict.lines(exercise.name)))
    if verdict.heading == PASSED:
        exercises.enter(exercise, passed=datetime.date.today().isoformat())
        click.echo(f"  compare           ./workshop exercise solution {exercise.number}, and the end of its README")
        if following := exercises.following(exercise):
            click.echo(f"  next              ./workshop exercise start {following.number}   # {following.title}")
        else:
            click.echo("  next              nothing: you have passed all exercises")
    if verdict.left:
        click.echo(f"  start afresh      ./workshop exercise jump {exercise.number} --keep-files")
    if verdict.heading == WRONG:
        click.echo(f"  stuck?            ./workshop exercise hint {exercise.number}")
    if verbose:
        click.echo(f"\n{printed}")
    return verdict.exit_code


def snapshot(exercise: Exercise) -> dict[str, tuple[int, int]]:
    """Return size and time of each file in the learner's folder."""
    found = {}
    for folder, _, names in os.walk(exercise.work):
        for name in names:
            if exercises.is_editors_own(name):
                continue
            try:
                status = os.stat(os.path.join(folder, name))
            except FileNotFoundError:
                continue  # an editor replaces files
            found[os.path.join(folder, name)] = (status.st_size, status.st_mtime_ns)
    return found
