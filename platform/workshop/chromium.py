"""Chromium, which prints the slides and is the browser of the tests: Debian's package, not a snap."""

import shutil
from pathlib import Path

from workshop import binaries
from workshop.processes import base_environment

SNAP = Path("/usr/bin/snap")  # what each program in /snap/bin is a link to
IN_SNAP = "/snap/bin/chromium"
PATH = f"{base_environment()['PATH']}:{Path(IN_SNAP).parent}"


def problem() -> str | None:
    """Say why there is no Chromium that we can use; None if there is one."""
    found = shutil.which("chromium", path=PATH)
    if not found:
        return "Chromium is missing: `platform/provision.sh --test` installs it on Debian"
    if is_snap(Path(found)):
        return f"{found} is a snap, which cannot read the profile that Playwright makes in /tmp"
    return binaries.problem("chromium", binaries.version("chromium"))


def is_snap(program: Path) -> bool:
    """Tell whether a program is a snap's, or the script that Ubuntu's package has in the place of Chromium."""
    file = program.resolve()
    if file == SNAP or file.is_relative_to("/snap"):
        return True
    with open(file, "rb") as opened:
        return IN_SNAP.encode() in opened.read(4096)
