"""The Vagrantfile, as far as Vagrant judges it without a machine. What it provisions: test_bare_debian.py."""

import os
import re
import shutil
import subprocess

import pytest
from tests import vagrantfile

from workshop import paths

STAND_IN = "#!/bin/sh\necho 7.0.20r163906\n"  # for VBoxManage: Vagrant asks it for its version, and nothing else here

needs_vagrant = pytest.mark.skipif(
    not shutil.which("vagrant"), reason="vagrant is missing: platform/provision.sh --test installs it"
)


def validate(folder, *options, **environment):
    """Run `vagrant validate` on our Vagrantfile, with all that Vagrant writes in a folder."""
    ours = {"VAGRANT_HOME": str(folder / "home"), "VAGRANT_DOTFILE_PATH": str(folder / "dot")}
    offline = {"VAGRANT_CHECKPOINT_DISABLE": "1"}  # it would ask for newer versions of itself
    return subprocess.run(
        ["vagrant", "validate", *options],
        cwd=paths.REPOSITORY, env=os.environ | ours | offline | environment, capture_output=True, text=True,
    )  # fmt: skip


@needs_vagrant
def test_vagrant_takes_the_vagrantfile(tmp_path):
    result = validate(tmp_path, "--ignore-provider")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "validated successfully" in result.stdout


@needs_vagrant
def test_vagrant_takes_the_settings_for_virtualbox(tmp_path):
    program = tmp_path / "VBoxManage"
    program.write_text(STAND_IN)
    program.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    result = validate(tmp_path, PATH=path, VAGRANT_DEFAULT_PROVIDER="virtualbox")
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_ports_that_up_takes_are_forwarded_from_the_host_s_loopback_alone():
    assert 'PORTS = JSON.parse(File.read(File.join(__dir__, "platform/ports.json"))).values' in vagrantfile.TEXT
    forwarded = re.findall(r'"forwarded_port", (.+)', vagrantfile.TEXT)
    assert forwarded == ['guest: port, host: port, host_ip: "127.0.0.1", auto_correct: false']


def test_both_things_that_are_provisioned_are_found():
    assert len(vagrantfile.provisioning()) == vagrantfile.TEXT.count("config.vm.provision ") == 2
    assert len(vagrantfile.provisioning(run="always")) == 1
