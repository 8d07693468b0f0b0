import os

import click

from workshop import registry, state

# etcdctl's environment variables: those of the authority's certificate, the client's, and the client's private key.
FILES = {
    "v2": ("ETCDCTL_CA_FILE", "ETCDCTL_CERT_FILE", "ETCDCTL_KEY_FILE"),
    "v3": ("ETCDCTL_CACERT", "ETCDCTL_CERT", "ETCDCTL_KEY"),
}


@click.command(
    "etcdctl",
    epilog="Example: ./workshop etcdctl ls -r /services   With the v3 API: ./workshop etcdctl get --prefix /services",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("arguments", metavar="ARGUMENTS...", nargs=-1, required=True, type=click.UNPROCESSED)
def command(arguments: tuple[str, ...]) -> None:
    """Run etcdctl on the registry, with its address, its API (v2 or v3) and the client's certificate.

    The arguments are etcdctl's, which differ between the two APIs: `help` lists its commands.
    """
    up = state.load()
    ca, client = registry.client_files()
    environment = {"ETCDCTL_API": up.registry_api.removeprefix("v"), "ETCDCTL_ENDPOINTS": f"https://{up.registry}"}
    environment |= zip(FILES[up.registry_api], (ca, client, client), strict=True)
    os.execvpe("etcdctl", ["etcdctl", *arguments], os.environ | environment)
