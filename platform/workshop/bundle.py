"""A bundle: one tar file with everything that set-up would download, for machines without a network.

made-for       what provision.sh says of the machine that made it; it refuses a bundle that was made for another
SHA256SUMS     of all that follows
debs/          packages of the system with everything that they depend on; Packages is the index that apt wants
wheels/        the Python packages of requirements.lock, of which setuptools builds those that come as source
node_modules/  the front-end libraries, as they are installed here: they are pure JavaScript

provision.sh --bundle installs from it.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

from workshop import installers, paths
from workshop.errors import WorkshopError
from workshop.files import refuse_unwritable, replacing

PROVISION = paths.REPOSITORY / "platform" / "provision.sh"
SCRATCH = Path(os.environ.get("TMPDIR") or "/var/tmp").resolve()  # noqa: S108  # 300 MB: /tmp may be memory
LAST_LINES = 5  # of what a failed command has said


def make(file: Path, say: Callable[[str], None]) -> str:
    """Write a bundle to `file`, which is whole afterwards, or as it was; return for which machine it is.

    WorkshopError when the file cannot be written or something cannot be downloaded.
    """
    refuse_unwritable(file)
    try:
        with (
            replacing(file.resolve(), mode=0o644) as temporary,
            tempfile.TemporaryDirectory(prefix="bundle-", dir=SCRATCH) as folder,
        ):
            return write(temporary, Path(folder), say)
    except OSError as error:
        raise WorkshopError(f"The bundle cannot be made: {error}.") from None


def write(file: Path, folder: Path, say: Callable[[str], None]) -> str:
    """Download everything into `folder`, and pack it into `file`; return for which machine it is."""
    scratch, contents = folder / "scratch", folder / "contents"
    for needed in (scratch, contents / "debs", contents / "wheels"):
        needed.mkdir(parents=True)
    made_for = run(scratch, "bash", PROVISION, "--made-for", name=PROVISION.name)
    machine, _, packages = made_for.splitlines()

    say("Downloading the packages of the system, with everything that they depend on")
    download_debs(packages.split(), scratch, contents / "debs")
    say("Downloading the Python packages of requirements.lock")
    download_wheels(scratch, contents / "wheels")
    # Without the file that says that all of it is there: who installs from the bundle writes it at the end.
    shutil.copytree(paths.NPM, contents / "node_modules", ignore=shutil.ignore_patterns("installed-lock.json"))

    say("Packing")
    sums = [f"{sha256(path)}  {path.relative_to(contents)}\n" for path in contents.rglob("*") if path.is_file()]
    (contents / "SHA256SUMS").write_text("".join(sums))
    (contents / "made-for").write_text(made_for)
    with tarfile.open(file, "w") as tar:
        for member in ("made-for", "SHA256SUMS", "debs", "wheels", "node_modules"):  # what is read first, first
            tar.add(contents / member, member)
    return machine


def download_debs(packages: list[str], scratch: Path, folder: Path, installed: str = "") -> None:
    """Download what a system of this kind needs, beside what is `installed`; write the index of it.

    installed: what dpkg says of another system, in its status file; an empty one has nothing. This one is not touched.
    """
    archives = scratch / "archives"
    for needed in (archives / "partial", scratch / "lists" / "partial"):
        needed.mkdir(parents=True)
    (scratch / "status").write_text(installed)
    apt = ("apt-get", "--quiet", "--yes", "--no-install-recommends")
    options = [
        f"Dir::State={scratch}", f"Dir::State::Status={scratch}/status",
        f"Dir::Cache={scratch}", f"Dir::Cache::Archives={archives}",
        "APT::Sandbox::User=root",  # or it warns that its own user may not look into our folder
    ]  # fmt: skip
    apt += tuple(word for option in options for word in ("-o", option))
    run(scratch, *apt, "update")
    run(scratch, *apt, "--download-only", "install", *packages)
    index = []
    for deb in sorted(archives.glob("*.deb")):
        # Without the epoch, as in Debian's own archive: its colon would have to be quoted in the index.
        placed = deb.rename(folder / re.sub(r"_\d+%3a", "_", deb.name))
        control = run(scratch, "dpkg-deb", "--field", placed)
        index.append(f"{control}Filename: ./{placed.name}\nSize: {placed.stat().st_size}\nSHA256: {sha256(placed)}\n\n")
    (folder / "Packages").write_text("".join(index))


def download_wheels(scratch: Path, folder: Path) -> None:
    """Download what the lock file names, each file checked against its hash."""
    pip = (sys.executable, "-I", installers.__file__, "pip", "download", "--quiet", "--dest", folder)
    lock = paths.REPOSITORY / "requirements.lock"
    # What builds a package is in .venv/. In isolation, pip would download it again, without a hash.
    options = ("--use-pep517", "--no-build-isolation", "--no-deps", "--require-hashes")
    run(scratch, *pip, *options, "--requirement", lock, name="pip")


def run(scratch: Path, *command: str | Path, name: str = "") -> str:
    """Return what a command has said, which has our folder for what it writes itself; WorkshopError when it failed."""
    environment = os.environ | {"TMPDIR": str(scratch), "LC_ALL": "C.UTF-8"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    if result.returncode:
        last = "\n".join((result.stdout + result.stderr).splitlines()[-LAST_LINES:])
        failed = name or Path(command[0]).name
        raise WorkshopError(f"{failed} failed. Is the network there? Once it is, run this again. It said:\n{last}")
    return result.stdout


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
