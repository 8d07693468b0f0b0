"""What the docker driver leaves behind, and what it says when Docker refuses."""

import os
import signal

import pytest
import requests
from tests.engine import BASE, docker

KEPT = {"nickname": "kept", "password": "a good password"}


def made(workshop, *what: str) -> list[str]:
    """Return what Docker lists that a workshop has made."""
    return docker(*what, "--quiet", "--filter", f"label=workshop={workshop.run_folder}").split()


def assert_nothing_is_left(workshop) -> None:
    assert made(workshop, "ps", "--all") == []
    assert made(workshop, "network", "ls") == []
    assert workshop.processes() == []


def test_down_removes_all_that_it_has_made_and_nothing_else(workshop):
    docker("create", "--name", "stranger", BASE, "true")
    docker("network", "create", "strange")
    try:
        workshop.up()
        workshop.run("scale", "monolith=2")
        images = made(workshop, "image", "ls")
        assert images
        workshop.run("down")
        assert_nothing_is_left(workshop)
        assert made(workshop, "image", "ls") == images
        assert (workshop.run_folder / "data").exists()

        workshop.run("down", "--wipe")
        assert made(workshop, "image", "ls") == []
        assert not workshop.run_folder.exists()
        assert docker("image", "ls", "--quiet", "workshop-base")
        assert docker("inspect", "stranger", "strange")
    finally:
        docker("rm", "stranger")
        docker("network", "rm", "strange")


def test_what_is_kept_is_the_same_with_either_driver(workshop):
    for driver, status in (("process", 201), ("docker", 409), ("process", 409)):
        workshop.run("up", "stage0", "--driver", driver, "--db", "sqlite")
        assert requests.post(f"{workshop.url}/api/users", json=KEPT, timeout=5).status_code == status
        other, port = "docker" if driver == "process" else "process", workshop.url.rpartition(":")[2]
        refused = workshop.run("up", "stage0", "--driver", other, "--port", port, expect=1)
        assert f"stage0 is up already, with {driver}: `./workshop down` comes first." in refused.stderr
        workshop.run("down")


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_up_leaves_nothing_or_the_next_command_removes_it(workshop, until, sent):
    up = workshop.popen("up", "stage0")
    until(lambda: made(workshop, "ps"), 60, "a container")
    os.kill(up.pid, sent)
    up.communicate(timeout=60)
    if sent == signal.SIGKILL:
        until(lambda: made(workshop, "ps"), 5, "a container that runs on")
        workshop.run("down")
    assert_nothing_is_left(workshop)


def test_a_build_that_fails_is_shown_and_changes_nothing(copied_workshop):
    workshop = copied_workshop
    requirements = workshop.repository / "stage0-monolith" / "requirements.txt"
    good = requirements.read_text()
    requirements.write_text(f"{good}there-is-no-such-package==1\n")
    refused = workshop.run("up", "stage0", expect=1).stderr
    assert "/monolith:v1 cannot be built from" in refused
    assert "No matching distribution found for there-is-no-such-package==1" in refused
    assert_nothing_is_left(workshop)

    requirements.write_text(good)
    workshop.up()
    before = workshop.instances()
    requirements.write_text(f"{good}there-is-no-such-package==1\n")
    refused = workshop.run("upgrade", "monolith", expect=1).stderr
    assert "/monolith:v2 cannot be built from" in refused
    assert [instance["id"] for instance in workshop.instances()] == [instance["id"] for instance in before]
    assert not (workshop.run_folder / "builds" / "monolith" / "v2").exists()


def test_without_an_image_to_begin_with_it_says_where_one_comes_from(workshop, monkeypatch):
    monkeypatch.setenv("WORKSHOP_BASE_IMAGE", "localhost:1/nowhere:none")
    refused = workshop.run("up", "stage0", expect=1).stderr
    assert "Error: There is no image localhost:1/nowhere:none to begin with: " in refused
    assert "platform/docker/make-base.sh localhost:1/nowhere:none` makes one." in refused
    assert_nothing_is_left(workshop)


def test_where_docker_does_not_answer_it_says_what_to_do(workshop, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    refused = workshop.run("up", "stage0", expect=1).stderr
    assert refused == "Error: Docker does not answer: `sudo service docker start`.\n"
    assert not (workshop.run_folder / "stage.json").exists()
    assert "no `--driver docker`: Docker does not answer: `sudo service docker start`" in workshop.run("doctor").stdout
