"""The docker driver: how the containers are confined, what is left of them, and what Docker may lack or refuse."""

import json
import os
import signal
import time
from pathlib import Path

import psutil
import pytest
import requests
from tests.engine import BASE, docker
from tests.load import containers, in_rotation, summary

from workshop.probe import Probe

KEPT = {"nickname": "kept", "password": "a good password"}


def inspected(stage) -> dict[str, dict]:
    """Return what Docker knows of each container of a stage."""
    names = [name.removeprefix("/") for name, *_ in containers(stage)]
    return {row["Name"]: row for row in json.loads(docker("inspect", *names))}


def made(workshop, *what: str) -> list[str]:
    """Return what Docker lists that a workshop has made."""
    return docker(*what, "--quiet", "--filter", f"label=workshop={workshop.run_folder}").split()


def assert_nothing_is_left(workshop) -> None:
    assert made(workshop, "ps", "--all") == []
    assert made(workshop, "network", "ls") == []
    assert workshop.processes() == []


def test_every_container_is_confined(stage):
    """As Docker was told, and as the kernel sees it."""
    for name, row in inspected(stage).items():
        host = row["HostConfig"]
        assert host["ReadonlyRootfs"], name
        assert host["CapDrop"] == ["ALL"], name
        assert not host["Privileged"], name
        assert host["Memory"] == 512 << 20, name
        assert host["PidsLimit"] == 512, name
        mounted = [Path(mount["Source"]) for mount in row["Mounts"]]
        assert all(stage.run_folder in source.parents for source in mounted), name
    for name, pid, _ in containers(stage):
        for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
            facts = dict(line.split(":\t") for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
            assert "0" not in facts["Uid"].split(), name
            assert int(facts["CapEff"], 16) == int(facts["CapBnd"], 16) == 0, name
            assert facts["NoNewPrivs"] == "1", name


def test_only_the_load_balancer_is_published_and_on_loopback(stage):
    networks = set()
    for name, row in inspected(stage).items():
        networks |= set(row["NetworkSettings"]["Networks"])
        published = [pair for pairs in row["NetworkSettings"]["Ports"].values() for pair in pairs or []]
        assert bool(published) == name.endswith("-haproxy")
        assert {pair["HostIp"] for pair in published} <= {"127.0.0.1"}
    assert len(networks) == 1
    assert all(i["address"].endswith(":5000") for s in stage.status()["services"] for i in s["instances"])


def test_a_secret_stands_in_no_command_line(stage):
    secrets = json.loads((stage.run_folder / "secrets.json").read_text()).values()
    lines = stage.names()
    assert any("docker run" in line for line in lines)
    assert [line for line in lines if any(secret in line for secret in secrets)] == []


def test_an_image_has_the_packages_that_its_service_names_and_no_others(stage):
    def imports(service: str, package: str) -> bool:
        (image,) = {row["Image"] for name, row in inspected(stage).items() if f"-{service}_v" in name}
        return bool(docker("run", "--rm", "--network=none", image, "python", "-c", f"import {package}; print('yes')"))

    assert imports("messages", "sqlalchemy")
    assert imports("ui", "flask")
    assert not imports("ui", "sqlalchemy")


def test_docker_itself_finds_the_instances_healthy(stage, until):
    def healths() -> set[str]:
        states = [row["State"] for row in inspected(stage).values()]
        return {state["Health"]["Status"] for state in states if "Health" in state}

    until(lambda: healths() == {"healthy"}, 60, "healthy")  # it asks every 30 s


@pytest.mark.parametrize("sent", ["KILL", "STOP"])
def test_a_killed_and_a_paused_container_are_out_of_rotation_and_replaced(stage, print_figure, until, sent):
    with Probe(stage.url) as probe:
        probe.run_for(1)
        victim = stage.instances()[0]["id"]
        sent_at = time.monotonic()
        stage.run("kill", victim, "--signal", sent)
        until(lambda: victim not in in_rotation(stage), 5, "out of rotation")
        out = time.monotonic() - sent_at
        until(lambda: victim in in_rotation(stage), 20, "replaced")
        replaced = time.monotonic() - sent_at
        probe.run_for(1)
    print_figure(
        f"container, kill --signal {sent} → out of rotation {out:.1f} s, → replaced {replaced:.1f} s: "
        f"{summary(probe.ledger)}"
    )
    assert out < 2 + 1  # the command itself takes some of it
    assert replaced < 15
    assert [answer for answer in probe.ledger.failed("GET") if not answer.failure.startswith("504")] == []
    assert (probe.ledger.is_counted, probe.ledger.lost, probe.ledger.doubled) == (True, [], [])


def test_a_paused_container_goes_on_when_it_is_told_to(stage, until):
    victim = stage.instances()[0]
    stage.run("kill", victim["id"], "--signal", "STOP")
    until(lambda: victim["id"] not in in_rotation(stage), 5, "out of rotation")
    stage.run("kill", victim["id"], "--signal", "CONT")
    until(lambda: victim["id"] in in_rotation(stage), 5, "in rotation again")
    assert victim["pid"] in [instance["pid"] for instance in stage.instances()]


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
    assert "platform/docker/make-base.sh` makes one." in refused
    assert_nothing_is_left(workshop)


def test_where_docker_does_not_answer_it_says_what_to_do(workshop, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    refused = workshop.run("up", "stage0", expect=1).stderr
    assert refused == "Error: Docker does not answer: run `sudo systemctl start docker`.\n"
    assert not (workshop.run_folder / "stage.json").exists()
    assert "no `--driver docker`: Docker does not answer: run `sudo systemctl" in workshop.run("doctor").stdout
