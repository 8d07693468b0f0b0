import click
from rich.console import Console

from workshop import doctor

VERDICTS = ("Ready.", "Not ready: you can mend this.", "Not ready: an administrator of this machine must mend this.")


@click.command("doctor", epilog="Example: ./workshop doctor")
@click.pass_context
def command(context: click.Context) -> None:
    """Say whether this machine can run the workshop: exit 0 ready, 1 you can mend it, 2 an administrator must.

    The report is made for pasting: it contains no secrets.
    """
    findings = doctor.examine()
    console = Console(highlight=False)
    for finding in findings:
        mark = {0: "[green]✓[/]", 1: "[yellow]✗[/]", 2: "[red]✗[/]"}[finding.severity]
        console.print(f"{mark} {finding.what}", soft_wrap=True)
        if finding.remedy:
            console.print(f"  → {finding.remedy}", soft_wrap=True)
    worst = max(finding.severity for finding in findings)
    console.print(VERDICTS[worst])
    context.exit(worst)
