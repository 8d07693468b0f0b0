"""What the Vagrantfile says, as far as it can be tried without a virtual machine."""

import re
import shlex

from workshop import paths

FILE = paths.REPOSITORY / "Vagrantfile"
TEXT = FILE.read_text()
FOLDER = re.search(r'(?m)^FOLDER = "(.+)"', TEXT)[1]  # the repository's, in the guest
USER = "vagrant"  # as whom Vagrant logs in
UPLOADED = "/tmp/vagrant-shell"  # noqa: S108  # where Vagrant puts a script before it runs it


def provisioning(run: str | None = None) -> list[str]:
    """Return the commands by which root does in a guest what Vagrant does there after the first boot, in that order.

    run: only the provisioners with this value of `run`; "always" are those of each boot.
    """
    lines = re.findall(r"(?m)^ *config\.vm\.provision (.+)", TEXT.replace("#{FOLDER}", FOLDER))
    found = [dict(re.findall(r'(\w+): "?([^",]+)', line)) for line in lines]
    return [_command(**options) for options in found if run in (None, options.get("run"))]


def _command(type: str, path: str = "", args: str = "", inline: str = "", privileged: str = "true", **_) -> str:
    """Return what Vagrant does for one provisioner: a login shell of its user, through sudo if it is privileged."""
    assert type == "shell"
    sudo = "sudo -E -H " if privileged == "true" else ""
    command = f"{sudo}bash -l -c {shlex.quote(inline or f'{UPLOADED} {args}')}"
    upload = f"install -m 755 {FOLDER}/{path} {UPLOADED}; " if path else ""
    return f"{upload}su {USER} -c {shlex.quote(command)}"
