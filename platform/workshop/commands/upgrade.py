import click
from rich.console import Console
from rich.table import Table

from workshop import builds, evolution, migrations, rollout, state, status


@click.command("upgrade", epilog="Example: ./workshop upgrade monolith, or first ./workshop upgrade monolith --plan")
@click.argument("name", metavar="SERVICE")
@click.option("--to", "version", metavar="vN", help="A version that has been built; default: the code as it is now.")
@click.option("--plan", "only_plan", is_flag=True, help="Show what the migrations would do, and do nothing.")
@click.option("--allow-breaking", is_flag=True, help="Migrate even if the version that runs does not survive it.")
def command(name: str, version: str | None, only_plan: bool, allow_breaking: bool) -> None:
    """Deploy SERVICE with nobody noticing: migrate, then replace one instance after the other.

    It can be repeated after an interruption, or undone by `rollback`. A version that does not come up ends it: what
    served before goes on.
    """
    if only_plan:
        show_plan(name, version)
        return
    with state.locked(f"upgrade {name}"):
        up = state.load()
        rollout.upgrade(evolution.current(up), up, name, version, allow_breaking, click.echo)


def show_plan(name: str, version: str | None) -> None:
    """Print the operations of the migrations that the database lacks, and what each one means."""
    up = state.load()
    current = evolution.current(up)
    status.ensure_ours(current, name)
    up.ensure_not_joined(name, "upgrade")
    service = current.service(name)
    plan = migrations.plan(current, service, up, builds.find(name, version) if version else service.folder)
    if not plan.pending:
        ahead = ", ".join(sorted({step.revision for step in plan.ahead}))
        click.echo("Nothing to migrate" + (f": the database is ahead of this version, by {ahead}." if ahead else "."))
        for step in plan.ahead:
            click.echo(f"  {step.what}: {step.problem or 'compatible'}")
        return
    shown = Table()
    for heading in ("revision", "operation", "while older versions run"):
        shown.add_column(heading, overflow="fold")
    for step in plan.pending:
        meaning = f"[red]breaking[/]: {step.problem}" if step.problem else "[green]compatible[/]"
        shown.add_row(step.revision, step.what, meaning)
    Console().print(shown)
