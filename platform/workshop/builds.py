"""Builds: immutable, numbered copies of a service's code, as container images would be.

Instances run from a build, so editing a file changes nothing that runs until it is deployed. The one exception is an
instance that `join --dev` runs from the working tree, whose version is `vdev`.
"""

import compileall
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from workshop import drivers, paths
from workshop.errors import WorkshopError
from workshop.stage import Service

# What a service does not need to run: an image would not contain it either.
LEFT_OUT = shutil.ignore_patterns("__pycache__", ".*", "tests", "node_modules", "stage.toml", "pytest.ini", "README.md")
WORKING_TREE = "vdev"  # in place of a version: the code as it is being edited
DIGEST = "DIGEST"  # beside the build: of the code that it was made from


def folder(service: str, version: str) -> Path:
    return paths.BUILDS / service / version


def is_working_tree(instance: str) -> bool:
    """Tell whether an instance of this name runs from a working tree."""
    return instance.split("_")[1:2] == [WORKING_TREE]


def versions(service: str) -> list[str]:
    """Return the versions there are, oldest first."""
    names = [path.name for path in (paths.BUILDS / service).glob("v*") if path.name[1:].isdigit()]
    return sorted(names, key=lambda name: int(name[1:]))


def find(service: str, version: str) -> Path:
    """Return the folder of a build. Raises WorkshopError, naming those there are, when there is no such version."""
    if not versions(service):
        raise WorkshopError(
            f"The builds of {service} were removed. Run `./workshop restart {service}`, which makes one."
        )
    if version not in versions(service):
        raise WorkshopError(f"{service} has no build {version!r}: there are {', '.join(versions(service))}.")
    found = folder(service, version)
    drivers.current().package(service, version, found, (found / DIGEST).read_text())
    return found


def is_removed(service: str, version: str) -> bool:
    """Tell whether a build that was made is no longer there. A working tree is never built."""
    return version != WORKING_TREE and not (folder(service, version) / DIGEST).exists()


def build(service: Service) -> str:
    """Build the service as its code is now; return the version: that of an earlier build of the same code, if any."""
    code = digest(service)
    known, package = versions(service.name), drivers.current().package
    for version in reversed(known):
        if (folder(service.name, version) / DIGEST).read_text() == code:
            package(service.name, version, folder(service.name, version), code)
            return version
    version = f"v{int(known[-1][1:]) + 1 if known else 1}"
    target = folder(service.name, version)
    half_made = target.with_suffix(".part")
    shutil.rmtree(half_made, ignore_errors=True)
    try:
        half_made.mkdir(parents=True)  # there may be no files: of a program that is installed
        for inside, source in contents(service).items():
            (half_made / inside).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, half_made / inside)
        # Compiled here once, not by every instance at its start.
        if not compileall.compile_dir(half_made, quiet=1):
            raise WorkshopError(
                f"The code of {service.name} does not compile: correct the file named above, whose original is in "
                f"{service.folder}."
            )
        (half_made / DIGEST).write_text(code)
        package(service.name, version, half_made, code)
        os.rename(half_made, target)
    except BaseException:
        shutil.rmtree(half_made, ignore_errors=True)
        raise
    return version


def digest(service: Service) -> str:
    """Return a digest of all that a build of the service would contain."""
    total = hashlib.sha256()
    for inside, source in sorted(contents(service).items()):
        total.update(inside.encode() + b"\0" + source.read_bytes() + b"\0")
    return total.hexdigest()


def contents(service: Service) -> dict[str, Path]:
    """Return what a build of the service consists of: file in the build → file that it is a copy of."""
    return files(sources(service))


def sources(service: Service) -> dict[str, Path]:
    """Return what a build is made from: place in the build → folder or file."""
    return {"": service.folder} | service.shared | {place: npm_file(name) for place, name in service.npm.items()}


def files(sources: dict[str, Path]) -> dict[str, Path]:
    """Return the files that sources consist of now: file in the build → file that it is a copy of."""
    found = {}
    for place, source in sources.items():
        if source.is_dir():
            found |= {str(Path(place, inside)): file for inside, file in _files(source)}
        else:
            found[place] = source
    return found


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for place, folders, files in os.walk(folder):
        for ignored in LEFT_OUT(place, folders):
            folders.remove(ignored)
        for name in set(files) - LEFT_OUT(place, files):
            path = Path(place, name)
            yield str(path.relative_to(folder)), path


def npm_file(name: str) -> Path:
    """Return where a file of an npm package lies. Raises WorkshopError when it has not been installed."""
    path = paths.NPM / name
    if not path.is_file():
        raise WorkshopError(f"{path} is missing: run `./workshop setup`.")
    return path
