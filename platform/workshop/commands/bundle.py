from pathlib import Path

import click

from workshop import bundle


@click.command("bundle", epilog="Example: ./workshop bundle ~/workshop.tar")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
def command(file: Path) -> None:
    """Write all that set-up would download into FILE, for a class without network.

    It is for machines with this distribution and this version of the workshop: `./workshop setup --bundle FILE`
    installs from it.
    """
    machine = bundle.make(file, click.echo)
    size = file.stat().st_size / 1_000_000
    click.echo(f"{file} is written: {size:.0f} MB, for {machine}, with this version of the workshop.")
    click.echo(f"Where there is no network: ./workshop setup --bundle {file}")
