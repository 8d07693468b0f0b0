from pathlib import Path

import click

from workshop import evolution, joining, state


@click.command(
    "join", epilog="Example: ./workshop join work/16-any-language --name words --route /api/words -- ./words"
)
@click.argument("words", metavar="FOLDER|COMMAND...", nargs=-1, required=True)
@click.option("--name", metavar="NAME", help="The service's name; default: that of service.toml.")
@click.option("--route", "routes", multiple=True, metavar="PREFIX", help="A path prefix that it answers; repeatable.")
@click.option("--dev", is_flag=True, help="Run one instance from FOLDER itself, which restarts when a file changes.")
@click.option(
    "--weight", "percent", type=click.IntRange(1, 99), help="With --dev: how many percent of the requests it gets."
)
def command(words: tuple[str, ...], name: str | None, routes: tuple[str, ...], dev: bool, percent: int | None) -> None:
    """Start a program with a sidecar, as a service of the stage that is up, until `leave` or `down`.

    FOLDER is copied into a build. Its service.toml says how the program is started, or COMMAND does, after `--`; in it,
    $HOST and $PORT stand for where to listen. COMMAND alone runs an installed program.

    With --dev and the name of one of the stage's own services, your files serve beside its other instances.
    """
    folder = Path(words[0]).resolve() if Path(words[0]).is_dir() else None
    given = list(words[1:] if folder else words)
    if percent and not dev:
        raise click.UsageError("--weight needs --dev.")
    if dev and not folder:
        raise click.UsageError("--dev needs the FOLDER whose files it runs.")
    with state.locked("join"):
        up = state.load()
        current = evolution.current(up)
        if not folder:
            joining.ensure_is_program(given)
        service = joining.declare(current, folder, given, name, list(routes))
        if dev:
            joining.join_working_tree(current, up, service, percent, click.echo)
        else:
            joining.join(current, up, service, click.echo)
