import click
from rich.console import Console
from rich.rule import Rule

from workshop import evolution, evolve, stage, state
from workshop.errors import WorkshopError
from workshop.evolution import Evolution
from workshop.keys import refuse_without_keyboard, wait_for_key
from workshop.state import Up


@click.command("evolve", epilog="Example: ./workshop evolve stage1, and meanwhile ./workshop probe --for 5m")
@click.argument("target", metavar="[STAGE]", required=False)
@click.option("--back", is_flag=True, help="Undo the last step.")
@click.option("--yes", is_flag=True, help="Press no keys: go all steps at once.")
def command(target: str | None, back: bool, yes: bool) -> None:
    """Take what runs to STAGE, step by step, while it serves; each step can be undone.

    An interrupted step is finished by the same command, or undone by --back.
    """
    if bool(target) == back:
        raise click.UsageError("Name the stage to go to, or give --back to undo the last step.")
    if not yes:
        refuse_without_keyboard("--yes")
    console = Console(highlight=False)
    if back:
        undo(console, yes)
        return
    refuse_impossible(target, state.load())
    while (up := state.load()).stage != target or up.is_on_the_way:
        take(console, up, yes)
    console.print(f"{stage.load(target).title} is up: {up.url}")


def refuse_impossible(target: str, up: Up) -> None:
    """Raise WorkshopError when the stage does not exist, or lies behind."""
    stage.load(target)
    names = list(stage.stages())
    if names.index(target) < names.index(up.stage) or (target == up.stage and up.is_on_the_way):
        raise WorkshopError(f"{target} lies behind: `./workshop evolve --back` undoes one step after the other.")


def take(console: Console, up: Up, yes: bool) -> None:
    """Announce the next step, and do it once a key has been pressed."""
    way = evolution.of(up)
    show(console, way, up.steps, "")
    if up.has_begun:
        console.print("It was interrupted, and is done from its beginning.")
    pause(yes)
    with state.locked(f"evolve {way.after.name}"):
        refuse_outdated(up)
        evolve.take(up, way, click.echo)


def undo(console: Console, yes: bool) -> None:
    """Announce which step is undone, and do it once a key has been pressed."""
    up = state.load()
    way, number = evolve.last_step(up)
    show(console, way, number, "back: ")
    pause(yes)
    with state.locked("evolve --back"):
        refuse_outdated(up)
        evolve.undo(up, way, number, click.echo)


def refuse_outdated(up: Up) -> None:
    """Raise WorkshopError when what is up has been changed while nobody pressed a key."""
    if state.load() != up:
        raise WorkshopError("What is up has changed meanwhile: look at `./workshop status`, and begin anew.")


def show(console: Console, way: Evolution, number: int, prefix: str) -> None:
    step = way.steps[number]
    place = f"{prefix}{way.before.name} → {way.after.name}, step {number + 1} of {len(way.steps)}: {step.title}"
    console.print(Rule(place, align="left"))
    console.print(step.why)


def pause(yes: bool) -> None:
    if not yes:
        wait_for_key("Any key to do it, Ctrl-C to leave it …")
