"""Prove that .venv/ and node_modules/ hold what the lock files name: `python3 -I proof.py packages|frontend`

Prints the first problem and exits with 1; prints nothing if there is none. Each package must have the locked version,
every file that it came with, whole, and each of its top-level modules must be importable. The script runs before the
command line can, so it imports nothing but the standard library and pip.
"""

import importlib
import json
import re
import sys
import warnings
from importlib import metadata
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
LOCKED = re.compile(r"(?m)^([a-z0-9-]+)==([^ ]+)(?: ; (.+?))? \\$")


def packages_problem() -> str | None:
    """Return what is wrong with the Python packages of requirements.lock; None when nothing is."""
    from pip._vendor.packaging.markers import Marker  # here, since the system's Python may have no pip

    lock = (REPOSITORY / "requirements.lock").read_text(encoding="utf-8")
    rows = LOCKED.findall(lock)
    locked = {name: version for name, version, marker in rows if not marker or Marker(marker).evaluate()}
    for name, version in locked.items():
        if problem := _package_problem(name, version):
            return problem
    # setuptools replaces distutils, which pip has imported; it has worked if the packages that it builds are there.
    to_import = locked.keys() - {"setuptools"}
    for module, packages in sorted(metadata.packages_distributions().items()):
        if module.isidentifier() and {_normalized(package) for package in packages} & to_import:
            try:
                importlib.import_module(module)
            except Exception as error:
                return f"{packages[0]} cannot be imported: {error!r}"
    return None


def _package_problem(name: str, version: str) -> str | None:
    try:
        package = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return f"{name} is missing"
    if package.version != version:
        return f"{name} has version {package.version}, not {version}"
    for file in package.files or ():
        found = Path(file.locate())
        if not found.is_file() and found.suffix != ".pyc":
            return f"{name} has lost the file {file}"
        if file.size is not None and found.stat().st_size != file.size:
            return f"{name} has a damaged file, {file}"
    return None


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def frontend_problem() -> str | None:
    """Return what is wrong with the front-end files of package-lock.json; None when nothing is."""
    lock = json.loads((REPOSITORY / "package-lock.json").read_text(encoding="utf-8"))
    for folder, locked in lock["packages"].items():
        if not folder or locked.get("optional"):
            continue
        try:
            found = json.loads((REPOSITORY / folder / "package.json").read_text(encoding="utf-8"))["version"]
        except (OSError, ValueError, KeyError):
            return f"{folder} is missing or damaged"
        if found != locked["version"]:
            return f"{folder} has version {found}, not {locked['version']}"
    return None


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # of packages about each other: nothing that a user could do
    sys.exit({"packages": packages_problem, "frontend": frontend_problem}[sys.argv[1]]())
