import dataclasses
import re

import click

from workshop import doctor, evolution, joining, lifecycle, registry, remedies, stage, state, stores, supervisor
from workshop.drivers import DRIVERS
from workshop.errors import WorkshopError
from workshop.lifecycle import DRIVER
from workshop.ports import PUBLIC_PORT as PORT

DEFAULT_DBS = ", ".join(f"{driver.db} with driver {name}" for name, driver in DRIVERS.items())


HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


def lower_host_names(context: click.Context, option: click.Option, values: tuple[str, ...]) -> list[str]:
    """Return the names in lower case. Raises BadParameter for what is not a host name or an IPv4 address."""
    names = [value.lower() for value in values]
    if wrong := [name for name in names if not HOST_NAME.fullmatch(name)]:
        raise click.BadParameter(f"{wrong[0]!r} is not a host name. Use a name such as chat.example, without a port.")
    return names


@click.command("up", epilog="Example: ./workshop up stage0 --port 8000")
@click.argument("name", metavar="STAGE")
@click.option("--db", type=click.Choice(["sqlite", "postgres"]), help=f"Where data is kept; default {DEFAULT_DBS}.")
@click.option("--driver", type=click.Choice(list(DRIVERS)), help=f"What everything is run as; default {DRIVER}.")
@click.option(
    "--registry",
    "registry_api",
    type=click.Choice(list(registry.APIS)),
    help=f"The API of etcd; default v2, or v3 with etcd {'.'.join(map(str, stores.V2_ENDED))} or later.",
)
@click.option("--port", type=click.IntRange(1, 65534), help=f"The page's port; default {PORT}, if it is free.")
@click.option("--with", "extra", multiple=True, metavar="SERVICE", help="An optional service, too; repeatable.")
@click.option(
    "--host",
    "names",
    multiple=True,
    metavar="NAME",
    callback=lower_host_names,
    help="Another name by which browsers reach the page, such as that of a tunnel; repeatable.",
)
def command(
    name: str,
    db: str | None,
    driver: str | None,
    registry_api: str | None,
    port: int | None,
    extra: tuple[str, ...],
    names: list[str],
) -> None:
    """Bring up STAGE and print its address; a stage that is up already stays as it is."""
    wanted = stage.load_with(name, extra)
    with state.locked(f"up {name}"):
        if not supervisor.is_running():
            doctor.stop_or_warn(db, driver or DRIVER, click.echo)
        left = state.left_on_the_way()
        try:
            up = lifecycle.up(wanted, db, driver, port, click.echo, names, registry_api)
            remedies.repair(up, click.echo)
        except (WorkshopError, OSError) as error:
            if (disk := doctor.disk()).severity == doctor.READY:
                raise
            raise WorkshopError(f"{error}\n{disk}") from None  # it has filled meanwhile
        declared = stage.load(up.stage, {*wanted.services, *(left.counts if left else ())})
        optional = {service.name: service for service in declared.services.values() if service.optional}
        current = evolution.current(up)
        current = dataclasses.replace(current, services=current.services | optional)
        joining.start_optional(current, up, optional, click.echo)
    click.echo(f"\n{wanted.title} is up: {up.url}   statistics of the load balancer: {up.stats_url}")
    if missing := optional.keys() - up.counts.keys():
        raise WorkshopError(
            f"{', '.join(sorted(missing))} could not be started, for the reason above. Correct it, then join it."
        )
