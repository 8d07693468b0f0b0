"""What the docker driver says when Docker is missing or refuses, and what it tells Docker."""

import os
import shutil
import signal
import subprocess

import psutil
import pytest

from workshop import binaries, docker
from workshop.errors import WorkshopError
from workshop.state import Up

UP = Up("test", "docker", "postgres", {}, {}, {}, {}, network="172.18.0.0/16")
WHY = binaries.BINARIES["docker"].why
DENIED = "Got permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock"


@pytest.fixture
def answers(monkeypatch):
    """A Docker that answers as it is told: by the first word of a command, its exit status, output and errors."""
    told = {
        "context": (0, "unix:///var/run/docker.sock\n", ""),
        "version": (0, "20.10.24+dfsg1\n", ""),
        "info": (0, "/\n[name=seccomp]\n", ""),
        "image": (0, "[]", ""),
    }

    def answer(command: str, *_, **__) -> subprocess.CompletedProcess:
        return subprocess.CompletedProcess(command, *told[command])

    monkeypatch.setattr(docker, "_docker", answer)
    monkeypatch.setattr(shutil, "which", lambda *_, **__: "/usr/bin/docker")
    return told


def test_nothing_is_wrong_with_a_docker_that_answers(answers):
    assert docker.Docker().problem() is None


def test_a_missing_docker_is_to_be_installed(answers, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    assert docker.Docker().problem() == "Docker is missing: run `sudo apt-get install docker.io`"


@pytest.mark.parametrize(
    ("version", "problem"),
    [
        ((1, "", f"{DENIED}: dial unix"), "you may not use Docker: run `sudo adduser {user} docker`, and sign in anew"),
        ((1, "", "Cannot connect to the"), "Docker does not answer: `sudo service docker start`"),
        ((0, "19.03.15\n", ""), f"docker 19.03.15 is older than 20.10 ({WHY}): use a later Docker"),
    ],
)
def test_it_says_what_to_do_about_a_docker_that_cannot_be_used(answers, version, problem):
    answers["version"] = version
    assert docker.Docker().problem() == problem.format(user=psutil.Process().username())


def test_another_machines_docker_and_one_with_other_users_are_refused(answers):
    answers["info"] = (0, "/\n[name=seccomp,profile=default name=rootless]\n", "")
    assert "(rootless, userns-remap): use one that does not" in docker.Docker().problem()
    answers["info"] = (0, "/in/another/virtual/machine\n[name=seccomp]\n", "")
    assert "is not on this machine: use a Docker that runs here" in docker.Docker().problem()
    answers["context"] = (0, "ssh://elsewhere\n", "")
    assert docker.Docker().problem().startswith("`docker` talks to another machine")


def test_more_room_is_needed_until_there_are_images(answers, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 400 << 20))
    assert docker.Docker().problem() is None
    answers["image"] = (1, "", "No such image")
    assert docker.Docker().problem() == "400 MiB of disk free for Docker, 3000 are needed: make room on the disk of /"


def test_a_docker_that_hangs_is_not_waited_for(monkeypatch):
    def hang(command, **options):
        raise subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(subprocess, "run", hang)
    with pytest.raises(WorkshopError, match=r"Docker does not answer: .*timed out after 60 seconds"):
        docker.Docker().package("users", "v1", None, "0")


def test_a_container_that_is_not_paused_may_be_told_to_go_on(answers):
    answers["unpause"] = (1, "", "Error response from daemon: Container 0123 is not paused")
    assert docker.Docker().signal("users_v1_abcd", 1, signal.SIGCONT)
    answers["unpause"] = (1, "", "Error response from daemon: No such container: users_v1_abcd")
    assert not docker.Docker().signal("users_v1_abcd", 1, signal.SIGCONT)


def test_a_container_is_told_its_environment_by_name_and_nothing_else_of_ours():
    told = {"JWT_PRIVATE_KEY": "hidden", "PORT": ""}
    container = docker.Container("users_v1_abcd", ["serve"], build=("users", "v1"), told=told, host="$HOST")
    words = docker.Docker().command(container)
    named = [words[number + 1] for number, word in enumerate(words) if word == "--env"]
    assert named == ["JWT_PRIVATE_KEY", "PORT", "WORKSHOP_PLATFORM"]
    assert "hidden" not in " ".join(words)
    assert words[-2:] == [f"{docker.PREFIX}/users:v1", "serve"]
    assert words[words.index("--ip") :][:2] == ["--ip", "$HOST"]


def test_another_base_or_another_user_makes_another_image(monkeypatch):
    monkeypatch.setenv("WORKSHOP_BASE_IMAGE", "company/debian:12")
    one = docker._base()
    monkeypatch.setattr(docker.Docker, "user", os.getuid() + 1)
    assert docker._base() != one
    monkeypatch.delenv("WORKSHOP_BASE_IMAGE")
    assert docker._base() != one


def test_servers_have_the_first_addresses_of_the_network():
    hosts = {name: UP.host(name) for name in ("registry", "queue", "postgres", "balancer")}
    assert hosts == {
        "registry": "172.18.0.2",
        "queue": "172.18.0.3",
        "postgres": "172.18.0.4",
        "balancer": "172.18.0.5",
    }
