"""The instances of one service of the stage that is up: what a roll works with.

    PYTHONPATH=platform .venv/bin/python exercises/12-rolling-upgrade/fleet.py messages v2

has your roll.py roll messages to v2. What `./workshop status` calls the version of the service stays as it was: that is
written down by `./workshop upgrade`, which afterwards finds the instances that are as it wants them, and leaves them.
"""

import dataclasses
import runpy
import sys

from workshop import builds, evolution, lifecycle, operations, paths, programs, state, status, supervisor
from workshop.errors import WorkshopError
from workshop.status import InstanceStatus


class Fleet:
    """The instances of a service, each started, served and stopped as the platform does it."""

    def __init__(self, service: str):
        self.service = service
        self.up = state.load()
        self.stage = evolution.current(self.up)
        self.wanted = self.up.counts[service]  # how many instances the service is to have

    def instances(self) -> list[InstanceStatus]:
        """Return all there are: each has an id, a version and a state, which is UP when it is in rotation."""
        return [i for i in status.instances(self.stage)[self.service] if i.version]  # a foreign one has no version

    def start(self, version: str) -> str:
        """Start an instance more; return its id at once. Whether it will ever serve is not known then."""
        builds.find(self.service, version)
        after = dataclasses.replace(self.up, versions=self.up.versions | {self.service: version})
        (program,) = programs.of(self.stage, self.service, after, 1)
        supervisor.add([program])
        return program.name

    def wait_until_served(self, instance: str) -> None:
        """Wait until it is in rotation. Raises WorkshopError, with its last lines, if it ends or takes 30 s."""
        lifecycle.wait_until_up(self.stage, [instance], watched=[instance])

    def stop(self, instance: str) -> None:
        """Take it out of rotation, drain it, end it, and have the supervisor forget it; returns when it is gone."""
        operations.remove([instance])


def main() -> None:
    service, version = sys.argv[1:]
    roll = runpy.run_path(str(paths.REPOSITORY / "work" / "12-rolling-upgrade" / "roll.py"))["roll"]
    try:
        with state.locked(f"roll of {service}"):
            roll(Fleet(service), version)
    except WorkshopError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
