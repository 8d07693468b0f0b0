import subprocess

import click
from rich.console import Console
from rich.rule import Rule

from workshop import demos, evolution, operations, paths, processes, stage, state, status
from workshop.commands.probe import table
from workshop.demos import DEMOS, Step
from workshop.errors import WorkshopError
from workshop.keys import refuse_without_keyboard, wait_for_key
from workshop.probe import Probe
from workshop.waiting import wait_until

IN_ROTATION = 20  # seconds until one of the instances can be chosen to be killed


@click.command("demo", epilog="Example: ./workshop demo kill")
@click.argument("name", metavar="|".join(DEMOS), type=click.Choice(list(DEMOS)))
@click.option("--auto", is_flag=True, help="Press no keys: each step follows a few seconds after the one before.")
def command(name: str, auto: bool) -> None:
    """Show a demonstration on the stage that is up, under a load, one key per step; exit 1 if its promise is broken."""
    if not auto:
        refuse_without_keyboard("--auto")
    up = state.load()
    current = evolution.current(up)
    demo, service = DEMOS[name], demos.service_of(current)
    steps = demo.steps(current, service)
    console = Console(highlight=False)
    console.print(f"[bold]{demo.title}[/]   page: {up.url}   statistics: {up.stats_url}")
    try:
        with Probe(up.url) as probe:
            for number, step in enumerate(steps, 1):
                show(console, step, f"{number} of {len(steps)}")
                take(current, service, step, auto)
                console.print(f"→ {step.look}")
                if auto:
                    probe.run_for(step.seconds)
            if not auto:
                wait_for_key("The last one. Any key for the ledger …")
    finally:  # after KeyboardInterrupt too
        with processes.not_interrupted():
            restore(current, up)
    console.print(table(probe.ledger))
    if not demo.holds(probe.ledger):
        raise WorkshopError(f"The promise of this demonstration is broken: {demo.promise}.")
    console.print(f"As promised: {demo.promise}.")


def show(console: Console, step: Step, place: str) -> None:
    console.print(Rule(place, align="left"))
    console.print(step.why)


def take(current: stage.Stage, service: stage.Service, step: Step, auto: bool) -> None:
    """Type a command, once a key has been pressed."""

    def serving() -> list[str]:
        return [i.id for i in status.instances(current)[service.name] if i.state == "UP" and i.pid]

    words = demos.typed(step.command, wait_until(serving, IN_ROTATION) or [service.name])
    click.echo(f"$ ./workshop {' '.join(words)}", nl=auto)
    if not auto:
        wait_for_key("   (any key)")
    run(words)


def run(words: list[str]) -> None:
    """Run a command and pass on what it prints. It sees no terminal, on which some go on showing things for ever.

    It has a session of its own, so that an interrupt reaches it through us: it cleans up before we do.
    """
    command = [*paths.LAUNCHER, *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            for line in process.stdout:
                click.echo(line, nl=False)
        except KeyboardInterrupt:
            process.terminate()
            with processes.not_interrupted():
                process.communicate()
            raise
    if process.returncode:
        raise WorkshopError(f"`./workshop {' '.join(words)}` has failed: the demonstration ends here.")


def restore(current: stage.Stage, before: state.Up) -> None:
    """Have as many instances as before, none of them stopped, and no canary."""
    for name in state.load().canaries.keys() - before.canaries.keys():
        run(["abort", name])
    for name in current.services:
        if all(process.state == "STOPPED" for process in operations.processes_of(name)):
            run(["start", name])
    now = state.load().counts
    if changed := [f"{name}={count}" for name, count in before.counts.items() if now[name] != count]:
        run(["scale", *changed])
