"""How containers are confined, and what becomes of one that is killed or paused."""

import json
import time
from pathlib import Path

import psutil
import pytest
from tests.engine import docker
from tests.load import containers, in_rotation, summary

from workshop.probe import Probe


def inspected(stage) -> dict[str, dict]:
    """Return what Docker knows of each container of a stage."""
    names = [name.removeprefix("/") for name, *_ in containers(stage)]
    return {row["Name"]: row for row in json.loads(docker("inspect", *names))}


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
            facts = dict(
                line.split(":\t")
                for line in Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8").splitlines()
            )
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
    instances = [instance for service in stage.status()["services"] for instance in service["instances"]]
    assert {i["address"].partition(":")[2] for i in instances if i["address"]} == {"5000"}  # a worker has none


def test_a_secret_stands_in_no_command_line(stage):
    secrets = json.loads((stage.run_folder / "secrets.json").read_text()).values()
    lines = stage.names()
    assert any("docker run" in line for line in lines)
    assert [line for line in lines if any(secret in line for secret in secrets)] == []


def test_an_image_has_the_packages_that_its_service_names_and_no_others(stage):
    if stage.stage != "stage2":
        pytest.skip("only there have services different packages")

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
