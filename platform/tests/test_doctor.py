"""The doctor's report, as a user gets it; what it looks at one by one is tested in unit/test_doctor.py."""

import os
import shutil
import subprocess
from pathlib import Path

import psutil
import pytest
from tests.privileges import as_root

from workshop import binaries, doctor
from workshop.haproxy import HAProxyUnavailable, Runtime, is_down
from workshop.registry import Backend, Upstream

REPOSITORY = Path(__file__).resolve().parents[2]


def in_a_namespace(mount: str, workshop, *arguments: str) -> subprocess.CompletedProcess:
    """Run a command of the workshop where something else is mounted, for it alone."""
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", f'{mount} && exec "$0" "$@"', workshop.repository / "workshop", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"WORKSHOP_RUN_DIR": str(workshop.run_folder)},
    )


def test_a_machine_that_is_ready(workshop, monkeypatch):
    for name in doctor.PROXIES:
        monkeypatch.delenv(name, raising=False)
    report = workshop.run("doctor").stdout

    assert report.startswith("✓ workshop 0.1")
    assert "✓ haproxy 2." in report
    assert "✗" not in report
    assert "\x1b" not in report  # no colours where nobody sees them
    # Nor long lines, apart from paths, and from who has taken the port.
    lines = [line for line in report.splitlines() if not line.startswith("✓ Port ")]
    for folder in (workshop.run_folder, workshop.repository):
        lines = [line.replace(str(folder), "") for line in lines]
    assert max(map(len, lines)) <= 80
    assert report.endswith("\nReady.\n")


@as_root
def test_a_program_that_is_too_old_is_for_an_administrator_and_up_refuses_it_in_the_same_words(workshop, tmp_path):
    old = tmp_path / "haproxy"
    old.write_text("#!/bin/sh\necho HAProxy version 2.4.22\n")
    old.chmod(0o755)
    mount = f"mount --bind {old} {binaries.find('haproxy')}"

    examined = in_a_namespace(mount, workshop, "doctor")
    assert examined.returncode == 2
    too_old = "haproxy 2.4.22 is older than 2.6 (it adds servers with health checks while it runs"
    assert too_old in examined.stdout
    assert "\n  → use the one of Debian 12 or 13 instead of " in examined.stdout
    assert examined.stdout.endswith("\nNot ready: an administrator of this machine must mend this.\n")
    refused = in_a_namespace(mount, workshop, "up", "stage0")
    assert refused.returncode == 1
    assert too_old in refused.stderr
    assert workshop.processes() == []


def test_what_a_crash_has_left_behind_is_named_and_up_cleans_it(workshop, until):
    workshop.up()
    until(lambda: not workshop.kill_all(), 10, "all processes ended, and left their sockets and their lock behind")

    report = workshop.run("doctor", expect=1).stdout
    assert "✗ left behind: stage0 was up, and its supervisor is gone\n  → run `./workshop down`" in report
    assert report.endswith("\nNot ready: you can mend this.\n")
    assert "Cleaning up what an interrupted run has left behind." in workshop.run("up", "stage0").stdout
    assert "✓ stage0 is up at http://127.0.0.1:" in workshop.run("doctor").stdout


def test_processes_that_are_left_over_are_named_and_up_ends_them(workshop, until):
    environment = os.environ | {"WORKSHOP_PLATFORM": str(workshop.run_folder)}
    subprocess.run(["sh", "-c", "sleep 300 & sleep 300 &"], env=environment, check=True)
    # Not before both have become what they are: in that moment a process shows no environment.
    until(lambda: workshop.names() == ["sleep 300 "] * 2, 2, "both are there")
    lost = workshop.processes()

    report = workshop.run("doctor", expect=1).stdout
    assert f"2 processes run on that belong to no stage, such as sleep, process {min(lost)}" in report
    workshop.run("up", "stage0")
    assert not set(lost) & set(workshop.processes())


def test_a_proxy_is_named_and_does_not_stand_between_the_parts_of_the_workshop(workshop, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://ann:secret@127.0.0.1:9")  # where nobody listens
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)

    report = workshop.run("doctor", expect=1).stdout
    assert "✗ http_proxy sends curl's requests to 127.0.0.1 to a proxy\n  → run `export no_proxy=" in report
    assert "secret" not in report
    assert "Warning: http_proxy sends" in workshop.run("up", "stage0").stdout
    workshop.run("probe", "--for", "1s")
    for process in map(psutil.Process, workshop.processes()):
        assert not {name.lower() for name in process.environ()} & {"http_proxy", "all_proxy", "https_proxy"}


@as_root
def test_a_file_that_root_has_left_in_the_run_folder_stops_up(workshop):
    (workshop.run_folder / "secrets.json").touch()
    os.chown(workshop.run_folder / "secrets.json", 65534, 65534)

    refused = workshop.run("up", "stage0", expect=1).stderr
    assert "secrets.json belongs to user 65534, perhaps after a `sudo ./workshop`: run `sudo chown -R" in refused
    assert "secrets.json belongs to user 65534" in workshop.run("doctor", expect=2).stdout


def test_doctor_names_an_instance_that_haproxy_reports_down_and_why(workshop, until):
    workshop.up()
    assert "Ready." in workshop.run("doctor").stdout
    workshop.registry().register(Backend("foreign", ["/foreign"], upstreams={"sick": Upstream("127.0.0.1", 9)}), "sick")

    def is_reported_down() -> bool:
        try:
            servers = Runtime(workshop.run_folder / "haproxy").servers()
        except HAProxyUnavailable:
            return False  # it is being reloaded for the new service
        return "sick" in servers.get("foreign", {}) and is_down(servers["foreign"]["sick"])

    until(is_reported_down, 5, "HAProxy has checked it")

    report = workshop.run("doctor", expect=1).stdout
    assert "✗ sick of foreign is DOWN at 127.0.0.1:9: it refuses the connection" in report


# Before anything is set up, the doctor is a shell script: platform/provision.sh --check


@pytest.fixture
def bare_workshop(copied_workshop):
    """A workshop whose Python packages have not been installed."""
    (copied_workshop.repository / ".venv").unlink()
    return copied_workshop


def test_doctor_before_set_up_says_what_is_missing(bare_workshop):
    report = bare_workshop.run("doctor", expect=1).stdout

    assert report == "missing: the Python packages of requirements.lock, in .venv/\nRun: ./workshop setup\n"


@as_root
def test_doctor_before_set_up_says_that_the_repository_cannot_be_written_and_so_does_set_up(bare_workshop):
    folder = bare_workshop.repository
    read_only = f"mount --bind {folder} {folder} && mount -o remount,bind,ro {folder}"

    examined = in_a_namespace(read_only, bare_workshop, "doctor")
    assert examined.returncode == 1
    assert f"cannot be written by you: {folder}\n" in examined.stdout
    assert "Copy the repository to a folder of your own, or run: sudo chown -R" in examined.stdout
    refused = in_a_namespace(read_only, bare_workshop, "up", "stage0")
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"{folder} cannot be written by you: copy the repository to a folder of your own")


@as_root
def test_doctor_before_set_up_leaves_packages_of_the_system_to_an_administrator(bare_workshop):
    hidden = shutil.which("dpkg-query")
    script = "#!/bin/sh\\necho not-installed"
    without = f"printf '{script}' >/tmp/none.$$ && chmod 755 /tmp/none.$$ && mount --bind /tmp/none.$$ {hidden}"
    examined = in_a_namespace(f"{without} && rm /tmp/none.$$", bare_workshop, "doctor")

    assert "missing package: haproxy: the load balancer" in examined.stdout
    assert examined.stdout.endswith("Run: ./workshop setup\n")  # root is the administrator
    assert examined.returncode == 1
