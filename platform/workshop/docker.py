"""The docker driver: each instance, worker, store and the load balancer is a container in one private network.

    workshop-base      Debian with Python, HAProxy, etcd, Redis and PostgreSQL    platform/docker/base.Dockerfile
    workshop-wheels    the same with the Python packages of requirements.lock     platform/docker/wheels.Dockerfile
    <prefix>/users:v1  a build: the packages that it names, and its code          platform/docker/service.Dockerfile

Nothing is downloaded while images are built: packages are fetched before, by the tools of this machine, which is why
the base has to be of the same release. The sidecars, the supervisor and the load-balancer manager stay outside, so no
container needs Docker's socket. All that a container may write to is its folder in .run/, at the same path as outside.
"""

import hashlib
import ipaddress
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import psutil

from workshop import binaries, bundle, paths
from workshop.errors import WorkshopError
from workshop.processes import MARK, base_environment, platform_environment
from workshop.supervisor import Process

FILES = paths.REPOSITORY / "platform" / "docker"
LOCK = paths.REPOSITORY / "requirements.lock"
PACKAGES = ("python3", "python3-venv", "haproxy", "redis-server", "etcd-server", "postgresql")
BUILD_SPACE = 3000  # MiB: the images take 1300, and twice that while they are made
SPACE = 300  # MiB, once there are images
TIMEOUT = 60  # seconds for any command of Docker's but a build; measured: 0.03 to 0.6
BUILD_TIMEOUT = 600  # seconds; measured: 60
LAST_LINES = 10  # of a build that failed
AS_IT_WAS_TO_BE = ("is already paused", "is not paused")  # says Docker, to a `pause` or `unpause` too many
LABEL = f"workshop={paths.RUN}"
# Of another workshop on the same machine, everything has another name.
PREFIX = f"workshop-{hashlib.sha256(str(paths.RUN).encode()).hexdigest()[:8]}"
LONGEST_PREFIX = 24  # of a network's addresses: 254 are enough
DYNAMIC = 26  # the length of the prefix of those addresses, the last ones, that Docker may give away: 64 of them
NOBODY_ELSE = 10001  # as whom containers run when we are root
CLIENT = ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG")  # what tells `docker` which daemon to talk to
LIMITS = (
    "--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges",
    "--memory=512m", "--pids-limit=512",
)  # fmt: skip


def main() -> None:
    """Run a container in our place: `python -m workshop.docker NAME docker run …`.

    One of the same name may be there still, if an earlier `docker run` was killed.
    """
    name, *command = sys.argv[1:]
    _docker("rm", "--force", name)
    # `docker run` would end, and with it the container, when nobody reads any more what it prints: the supervisor was
    # killed. tee goes on then.
    reader, writer = os.pipe()
    subprocess.Popen(["tee", "--output-error=warn-nopipe", "/dev/null"], stdin=reader)
    os.dup2(writer, sys.stdout.fileno())
    os.dup2(writer, sys.stderr.fileno())
    os.execvp(command[0], command)


@dataclass(frozen=True)
class Container:
    """A program, and what it is given when it is a container."""

    name: str
    words: list[str]  # its command
    build: tuple[str, str] | None = None  # the service and the version; none: it is a program of the platform's own
    told: Collection[str] = ()  # the names of the environment variables that reach it
    host: str = ""  # the address that it listens on
    folders: Sequence[Path] = ()  # those that it may write to
    reads: Collection[Path] = ()  # those that it may look into
    publish: Collection[str] = ()  # address:port pairs that lead to it


class Docker:
    db = "postgres"
    user = os.getuid() or NOBODY_ELSE
    ports: ClassVar = {"internal": 5000, "registry": 2379, "registry_peer": 2380, "queue": 6379, "postgres": 5432}

    def problem(self) -> str | None:
        if not shutil.which("docker", path=base_environment()["PATH"]):
            return "Docker is missing: run `sudo apt-get install docker.io`"
        where = _docker("context", "inspect", "--format", "{{.Endpoints.docker.Host}}").stdout
        if "://" in where and not where.startswith("unix://"):
            return "`docker` talks to another machine, where .run/ is not: unset DOCKER_HOST, or use another context"
        answer = _docker("version", "--format", "{{.Server.Version}}")
        if answer.returncode and "permission denied" in answer.stderr:
            name = psutil.Process().username()
            return f"you may not use Docker: run `sudo adduser {name} docker`, and sign in anew"
        if answer.returncode:
            return "Docker does not answer: `sudo service docker start`"  # with systemd or, as in some WSL, without
        version = answer.stdout.strip()
        if problem := binaries.problem("docker", version):
            return f"{problem}: use a later Docker"
        root, kind = _done("info", "--format", "{{.DockerRootDir}}\n{{.SecurityOptions}}").splitlines()
        if "rootless" in kind or "userns" in kind:
            return "this Docker makes other users of ours (rootless, userns-remap): use one that does not"
        try:
            free, needed = shutil.disk_usage(root).free >> 20, SPACE if _exists(_wheels()) else BUILD_SPACE
        except OSError:
            return f"{root}, where Docker keeps its images, is not on this machine: use a Docker that runs here"
        if free < needed:
            return f"{free} MiB of disk free for Docker, {needed} are needed: make room on the disk of {root}"
        return None

    def prepare(self, say: Callable[[str], None]) -> str:
        _make_images(say)
        # Docker chooses addresses that nothing here uses. Named by us, they may be given to single containers, too.
        _docker("network", "rm", PREFIX)
        _done("network", "create", "--label", LABEL, PREFIX)
        subnet = _done("network", "inspect", "--format", "{{(index .IPAM.Config 0).Subnet}}", PREFIX)
        _done("network", "rm", PREFIX)
        addresses = ipaddress.ip_network(subnet)
        if addresses.prefixlen > LONGEST_PREFIX:
            raise WorkshopError(
                f"Docker's networks, such as {subnet}, are too small: set larger ones, `default-address-pools`, "
                "in /etc/docker/daemon.json."
            )
        *_, dynamic = addresses.subnets(new_prefix=DYNAMIC)
        places = {"subnet": addresses, "gateway": addresses[1], "ip-range": dynamic}
        _done("network", "create", "--label", LABEL, *(f"--{key}={value}" for key, value in places.items()), PREFIX)
        return subnet

    def package(self, service: str, version: str, folder: Path, code: str) -> None:
        image, made_from = _image(service, version), _digest("service", code, _base(), _wheels())
        # One of that name may be of other code, from before .run/ was removed by hand, or of another base.
        found = _docker("image", "inspect", "--format", '{{index .Config.Labels "made-from"}}', image)
        if found.stdout.strip() != made_from:
            arguments = {"BASE": _base(), "WHEELS": _wheels()}
            _build(image, "service", folder, arguments, "--label", LABEL, "--label", f"made-from={made_from}")

    def environment(self, told: dict[str, str]) -> dict[str, str]:
        daemon = {name: os.environ[name] for name in CLIENT if name in os.environ}
        return base_environment() | platform_environment() | daemon | told

    def command(self, container: Container) -> list[str]:
        name = _name(container.name)
        options = ["--rm", "--name", name, "--hostname", container.name, "--label", LABEL, "--network", PREFIX, *LIMITS]
        options += ["--pull=never", "--log-driver=local"]
        # By name alone: it takes the values from its own environment, where nobody else can read them.
        options += [word for variable in (*container.told, MARK) for word in ("--env", variable)]
        for shared, mode in ((container.reads, ",readonly"), (container.folders, "")):
            options += [word for path in shared for word in ("--mount", f"type=bind,src={path},dst={path}{mode}")]
        options += [word for pair in container.publish for word in ("--publish", f"{pair}:{pair.rpartition(':')[2]}")]
        # Who has no address of its own is asked nothing.
        options += ["--ip", container.host] if container.host else ["--no-healthcheck"]
        image = _image(*container.build) if container.build else _base()
        run = ["docker", "run", *options, image, *container.words]
        return [sys.executable, "-P", "-m", "workshop.docker", name, *run]  # -P: not from the build's folder

    def clean_up(self, name: str) -> list[str]:
        return ["docker", "rm", "--force", _name(name)]

    def pids(self, processes: list[Process]) -> dict[str, int | None]:
        names = [process.name for process in processes]
        # Of those that are not there, it says so, and goes on.
        found = _docker("inspect", "--format", "{{.Name}} {{.State.Pid}}", *map(_name, names)).stdout.split()
        pids = dict(zip(found[::2], map(int, found[1::2]), strict=True))
        return {name: pids.get(f"/{_name(name)}") or None for name in names}

    def signal(self, name: str, pid: int, sent: signal.Signals) -> bool:
        match sent:
            case signal.SIGSTOP:
                done = _docker("pause", _name(name))
            case signal.SIGCONT:
                done = _docker("unpause", _name(name))
            case _:
                done = _docker("kill", "--signal", sent.name, _name(name))
        return done.returncode == 0 or any(words in done.stderr for words in AS_IT_WAS_TO_BE)

    def end_left_over(self) -> list[str]:
        names = _labelled("ps", "--all", "--format", "{{.Names}}")
        if names:
            _docker("rm", "--force", *names)
        if networks := _labelled("network", "ls", "--format", "{{.Name}}"):
            _docker("network", "rm", *networks)
        return [f"container {name}" for name in names]

    def wipe(self) -> None:
        if images := _labelled("image", "ls", "--quiet"):
            _docker("image", "rm", "--force", *images)


def _labelled(*command: str) -> list[str]:
    """Return what Docker lists of what we have made; nothing when there is no Docker that we could have used."""
    if not shutil.which("docker", path=base_environment()["PATH"]):
        return []
    try:
        return _docker(*command, "--filter", f"label={LABEL}").stdout.split()
    except WorkshopError:
        return []


def _make_images(say: Callable[[str], None]) -> None:
    """Have the images that those of the services are made from."""
    if _exists(_base()) and _exists(_wheels()):
        return
    with tempfile.TemporaryDirectory(prefix="images-", dir=bundle.SCRATCH) as name:
        scratch, debs, wheels = (Path(name, part) for part in ("scratch", "base/debs", "wheels/wheels"))
        for needed in (scratch, debs, wheels):
            needed.mkdir(parents=True)
        say(f"Making the images that all others begin with, from {base_image()}: a few minutes, once")
        installed = _packages_of(base_image())
        bundle.download_debs(list(PACKAGES), scratch, debs, installed)
        _build(_base(), "base", debs.parent, {"BASE": base_image(), "USER_ID": str(Docker.user)})
        bundle.download_wheels(scratch, wheels)
        _build(_wheels(), "wheels", wheels.parent, {"BASE": _base()})


def _packages_of(image: str) -> str:
    """Return what dpkg knows of an image. Raises WorkshopError when there is no such image, nor one to be pulled."""
    answer = _docker("run", "--rm", "--network=none", image, "cat", "/var/lib/dpkg/status", timeout=BUILD_TIMEOUT)
    if answer.returncode:
        raise WorkshopError(
            f"There is no image {image} to begin with: {_last_line(answer)}.\n"
            f"Where there is no registry, `sudo {FILES}/make-base.sh {image}` makes one."
        )
    return answer.stdout


def base_image() -> str:
    """Return the image that ours begin with: the one of this machine's release, unless another is asked for."""
    release = platform.freedesktop_os_release()
    known = {"debian": "debian:{VERSION_CODENAME}-slim", "ubuntu": "ubuntu:{VERSION_ID}"}  # as make-base.sh calls them
    return os.environ.get("WORKSHOP_BASE_IMAGE") or known.get(release["ID"], known["debian"]).format_map(release)


def _base() -> str:
    return f"workshop-base:{_digest('base', base_image(), str(Docker.user), *PACKAGES)}"


def _wheels() -> str:
    return f"workshop-wheels:{_digest('wheels', _base(), LOCK.read_text())}"


def _digest(recipe: str, *made_from: str) -> str:
    """Return a tag for an image: another recipe, or another thing that it is made from, makes another image."""
    return hashlib.sha256(json.dumps([_recipe(recipe).read_text(), *made_from]).encode()).hexdigest()[:12]


def _recipe(name: str) -> Path:
    return FILES / f"{name}.Dockerfile"


def _image(service: str, version: str) -> str:
    return f"{PREFIX}/{service}:{version}"


def _name(program: str) -> str:
    return f"{PREFIX}-{program}"


def _exists(image: str) -> bool:
    return _docker("image", "inspect", image).returncode == 0


def _build(image: str, recipe: str, context: Path, arguments: dict[str, str], *options: str) -> None:
    """Build an image from a folder, without a network. Raises WorkshopError, with its last lines, when that fails."""
    given = [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
    recipe_file = _recipe(recipe)
    command = ["build", "--network=none", "--force-rm", f"--tag={image}", f"--file={recipe_file}", *given, *options]
    result = _docker(*command, str(context), timeout=BUILD_TIMEOUT)
    if result.returncode:
        last = "\n".join(f"    {line}" for line in (result.stdout + result.stderr).splitlines()[-LAST_LINES:])
        raise WorkshopError(f"The image {image} cannot be built from {recipe_file}:\n{last}")


def _done(*arguments: str) -> str:
    """Return what Docker says to a command. Raises WorkshopError when it does not do it."""
    result = _docker(*arguments)
    if result.returncode:
        raise WorkshopError(f"Docker refuses `docker {' '.join(arguments)}`: {_last_line(result)}")
    return result.stdout.strip()


def _last_line(result: subprocess.CompletedProcess) -> str:
    return (result.stderr.strip().splitlines() or ["it says nothing"])[-1].removesuffix(".")


def _docker(*arguments: str, timeout: float = TIMEOUT) -> subprocess.CompletedProcess:
    """Have Docker do something. Raises WorkshopError when it takes longer than `timeout` seconds."""
    try:
        return subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired as error:
        raise WorkshopError(f"Docker does not answer: {error}. Is it, or this machine, too busy?") from None


if __name__ == "__main__":
    main()
