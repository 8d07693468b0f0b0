import os

import click

from workshop import registry, state


@click.command(
    "etcdctl",
    epilog="Example: ./workshop etcdctl ls -r /services",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("arguments", metavar="ARGUMENTS...", nargs=-1, required=True, type=click.UNPROCESSED)
def command(arguments: tuple[str, ...]) -> None:
    """Run etcdctl on the registry, with its address, its API version 2 and the client's certificate.

    The arguments are etcdctl's: `help` lists its commands.
    """
    address = state.load().registry
    ca, client = registry.client_files()
    environment = {
        "ETCDCTL_API": "2",
        "ETCDCTL_ENDPOINTS": f"https://{address}",
        "ETCDCTL_CA_FILE": ca,
        "ETCDCTL_CERT_FILE": client,
        "ETCDCTL_KEY_FILE": client,
    }
    os.execvpe("etcdctl", ["etcdctl", *arguments], os.environ | environment)
