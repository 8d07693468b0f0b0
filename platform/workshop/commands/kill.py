import signal

import click

from workshop import evolution, operations, state


def parse(context, parameter, name: str) -> signal.Signals:
    """Read `KILL`, `SIGKILL` or `9`."""
    try:
        return signal.Signals(int(name)) if name.isdigit() else signal.Signals[f"SIG{name.upper().removeprefix('SIG')}"]
    except (KeyError, ValueError):
        raise click.BadParameter(f"there is no signal {name!r}: try KILL, TERM, STOP or CONT") from None


@click.command("kill", epilog="Example: ./workshop kill monolith --signal STOP")
@click.argument("target", metavar="INSTANCE|SERVICE")
@click.option("--signal", "sent", default="KILL", show_default=True, callback=parse, help="The signal to send.")
def command(target: str, sent: signal.Signals) -> None:
    """Kill an instance, or all of a service, without warning: the supervisor brings it back."""
    up = state.load()
    operations.kill(evolution.current(up), target, sent, click.echo)
