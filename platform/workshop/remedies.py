"""What a running stage needs below .run/: which of it was removed, and what puts it back.

Removing .run/logs or .run/builds stops nothing at once. It shows when an instance ends: its next process has no log,
or no code. What HAProxy reads at a reload needs no remedy: its manager writes the files again (see balancer.py).
"""

from dataclasses import dataclass

from workshop import builds, haproxy, lifecycle, paths, programs, supervisor
from workshop.state import Up

AGAIN = "run `./workshop down`, then `up` again"


@dataclass(frozen=True)
class Loss:
    """Something that a running stage needs and does not have."""

    what: str
    remedy: str


def losses(up: Up) -> list[Loss]:
    """Return what was removed from .run/ and which programs do not run, although the stage is up."""
    found = []
    if not supervisor.has_logs():
        found.append(Loss(f"{paths.LOGS} was removed: no log is written", f"run `./workshop up {up.stage}`"))
    needed = {
        haproxy.Runtime(paths.HAPROXY).socket: "HAProxy cannot be changed",
        paths.SECRETS: "no instance can start",
        paths.CERTIFICATES / "ca.pem": "no program can use the registry",
        paths.CERTIFICATES / "client.pem": "no program can use the registry",
    }
    found += [Loss(f"{file} was removed: {what}", AGAIN) for file, what in needed.items() if not file.exists()]
    for service, version in [*up.versions.items(), *up.canaries.items()]:
        if builds.is_removed(service, version):
            what = f"build {version} of {service} was removed: its instances cannot start again"
            found.append(Loss(what, _rebuild(up, service)))
    return found + [Loss(what, "see `./workshop logs`, or " + AGAIN) for what in _not_running(up)]


def _rebuild(up: Up, service: str) -> str:
    if service in up.joined:
        return f"run `./workshop leave {service}`, and join it again"
    return f"run `./workshop restart {service}`, which builds it again"


def _not_running(up: Up) -> list[str]:
    """Return what the supervisor does not keep running. What `stop` has ended is known to it, and is not counted."""
    found = supervisor.processes()
    names = {process.name for process in found}
    missing = [
        f"{name} does not run" for name in programs.OWN if name not in names and (name, up.db) != ("postgres", "sqlite")
    ]
    for name, count in up.counts.items():
        there = [process for process in found if process.name.split("_")[0] == name]
        if len(there) < count:
            missing.append(f"{len(there)} of {count} processes of {name} run")
    return missing + [f"{p.name} does not stay up ({p.state})" for p in found if p.state in lifecycle.FAILED]


def repair(up: Up, say: lifecycle.Progress) -> None:
    """Put back what can be put back without stopping anything; name the rest."""
    if supervisor.restore_logs():
        say(f"{paths.LOGS} was removed. It is there again.")
    for loss in losses(up):
        say(f"Warning: {loss.what}: {loss.remedy}.")
