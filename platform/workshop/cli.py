"""The command line: one file per command, in commands/, imported when it is wanted."""

import errno
import importlib
import os
import shutil
import subprocess
import sys
from typing import NoReturn

import click
import psutil

from workshop import processes
from workshop.errors import WorkshopError
from workshop.haproxy import HAProxyUnavailable
from workshop.registry import RegistryUnavailable

COMMANDS = (
    "setup", "bundle", "doctor", "up", "down", "status", "logs", "open",
    "scale", "kill", "stop", "start", "restart", "join", "leave",
    "build", "upgrade", "rollback", "canary", "promote", "abort", "route", "evolve", "etcdctl",
    "probe", "bench", "demo", "diff", "tour", "exercises", "exercise", "slides", "test",
)  # fmt: skip


class Commands(click.Group):
    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        return importlib.import_module(f"workshop.commands.{name}").command


@click.command(cls=Commands, epilog="Begin with: ./workshop up stage0")
def cli() -> None:
    """Parley's workshop: one chat application, from a monolith to microservices."""


def main() -> None:
    processes.heed_interrupts()
    # Everything here is on loopback, whatever proxy the environment names for the rest of the world.
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.1,localhost"
    try:
        cli(prog_name="./workshop")
    except (RegistryUnavailable, HAProxyUnavailable) as error:
        end(f"The platform does not answer: {error}. Try again in a few seconds.")
    except (subprocess.TimeoutExpired, psutil.TimeoutExpired) as error:
        end(f"The platform is too slow: {error}. `./workshop down` ends what runs, then try again.")
    except OSError as error:
        if not is_refused(error):
            raise
        end(f"A file could not be read or written: {error}. `./workshop doctor` says what to do.")


def end(sentence: str) -> NoReturn:
    """Say it and exit, as click does with a WorkshopError that a command raises."""
    error = WorkshopError(sentence)
    error.show()
    sys.exit(error.exit_code)


def is_refused(error: OSError) -> bool:
    """Tell whether the disk is full or read-only, or the file not for this user."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES) or isinstance(error, shutil.Error)
