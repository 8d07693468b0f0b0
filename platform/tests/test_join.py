"""Services that join a stage while it runs: from a folder, as a command, from a working tree, or by themselves."""

import re
import shutil
from pathlib import Path

import psutil
import pytest
import requests
from tests.load import assert_flawless
from tests.workshops import REPOSITORY

from workshop.probe import Probe
from workshop.registry import Backend, Upstream

TINY = REPOSITORY / "platform" / "tests" / "tiny_service.py"
COMMAND = ("--", "python", "tiny_service.py", "$PORT")


@pytest.fixture
def tiny(tmp_path) -> Path:
    """The folder of a service that no stage declares."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    shutil.copy(TINY, folder)
    return folder


@pytest.fixture
def joined(stage, tiny):
    """The stage, with that service in it."""
    stage.run("join", str(tiny), "--name", "tiny", "--route", "/tiny", *COMMAND)
    yield stage
    if (stage.run_folder / "stage.json").exists() and "tiny" in services(stage):
        stage.run("leave", "tiny")


def services(stage) -> dict[str, dict]:
    return {service["name"]: service for service in stage.status()["services"]}


def served_by(stage, path: str) -> str:
    return requests.get(stage.url + path, timeout=5).headers.get("X-Served-By", "")


def test_a_folder_joins_and_leaves_under_load_and_no_request_fails(stage, tiny, until):
    shutil.copy(TINY, tiny)
    with Probe(stage.url) as probe:
        said = stage.run("join", str(tiny), "--name", "tiny", "--route", "/tiny", *COMMAND).stdout
        assert "tiny answers /tiny" in said
        assert served_by(stage, "/tiny/x").startswith("tiny_v1_")
        assert services(stage)["tiny"]["origin"] == "joined"
        stage.run("leave", "tiny")
        probe.run_for(1)
    assert_flawless(probe.ledger)
    assert "tiny" not in services(stage)
    assert "tiny" not in stage.registry().snapshot().services
    assert not served_by(stage, "/tiny/x").startswith("tiny")
    assert not [name for name in stage.names() if "tiny_service.py" in name]


def test_the_other_commands_act_on_a_joined_service(joined, until):
    assert "tiny: 2 in rotation" in joined.run("scale", "tiny=2").stdout
    assert "registered at" in joined.run("logs", "tiny").stdout
    one, *_ = joined.instances("tiny")
    assert "SIGKILL to process" in joined.run("kill", one["id"]).stdout
    until(lambda: [i["state"] for i in joined.instances("tiny")] == ["UP", "UP"], 20, "it is back")
    joined.run("stop", "tiny")
    assert requests.get(f"{joined.url}/tiny", timeout=5).status_code == 503
    joined.run("start", "tiny")
    for command in ("upgrade", "rollback", "canary", "promote", "abort", "restart"):
        refused = joined.run(command, "tiny", expect=1).stderr
        assert f"tiny has joined from outside stage.toml, and `{command}` handles only" in refused
    assert "(joined)" in joined.run("status").stdout


def test_its_command_and_route_may_be_in_service_toml(stage, tiny):
    (tiny / "service.toml").write_text("""
name = "tiny"
routes = ["/tiny"]
command = ["python", "tiny_service.py", "$PORT"]
settings = { COLOUR = "red" }
""")
    stage.run("join", str(tiny))
    assert psutil.Process(stage.instances("tiny")[0]["pid"]).environ()["COLOUR"] == "red"
    stage.run("leave", "tiny")

    (tiny / "service.toml").write_text('name = "tiny"\nroutes = ["tiny"]\ncommand = ["python"]\n')
    assert "service.toml, line 2, key routes: 'tiny' is no path prefix" in stage.run("join", str(tiny), expect=1).stderr


def test_an_optional_service_of_the_stage_joins_with_the_table_that_the_stage_has(stage):
    stage.run("join", str(REPOSITORY / "stage2-microservices" / "stats"), "--name", "stats")
    assert served_by(stage, "/api/stats").startswith("stats_v1_")
    stage.run("leave", "stats")


def test_an_installed_program_joins_without_a_folder(stage):
    stage.run("join", "--name", "tiny", "--route", "/tiny", "--", "python", str(TINY), "$PORT")
    served = served_by(stage, "/tiny")
    stage.run("leave", "tiny")
    assert served.startswith("tiny_v")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--name", "tiny", "--route", "/api/users"], "/api/users is answered by monolith. Choose another --route."),
        (["--name", "tiny", "--route", "tiny"], "'tiny' is not a path prefix"),
        (["--name", "Tiny", "--route", "/tiny"], "'Tiny' cannot be the name of a service"),
        (["--name", "etcd", "--route", "/tiny"], "'etcd' cannot be the name of a service"),
        (["--name", "worker", "--route", "/tiny"], "stage0 has worker itself"),
        (["--name", "monolith", "--route", "/tiny"], "stage0 has monolith itself"),
        (["--route", "/tiny"], "has no name"),
        (["--name", "tiny"], "tiny has no route"),
    ],
)
def test_what_cannot_join_is_refused_and_changes_nothing(stage, tiny, arguments, expected):
    if "/api/users" in arguments:
        stage.registry().set_route("/api/users", "monolith")
    before = services(stage).keys()
    assert expected in stage.run("join", str(tiny), *arguments, *COMMAND, expect=1).stderr
    assert services(stage).keys() == before
    stage.registry().remove_route("/api/users")


def test_a_folder_or_a_command_that_is_not_there_is_refused(stage, tiny):
    named = ("--name", "tiny", "--route", "/tiny")
    assert "is neither a folder nor an installed program" in stage.run("join", "./nowhere", *named, expect=1).stderr
    assert "is a file, and instances run from a copy" in stage.run("join", "README.md", *named, expect=1).stderr
    assert "has no service.toml that says" in stage.run("join", str(tiny), *named, expect=1).stderr
    assert "stage0 has no service 'nobody'" in stage.run("leave", "nobody", expect=1).stderr
    assert "belongs to stage0, it has not joined" in stage.run("leave", "monolith", expect=1).stderr


@pytest.mark.parametrize("behaviour", ["crash", "sick"])
def test_a_service_that_does_not_serve_is_shown_and_removed_and_the_stage_goes_on(stage, tiny, behaviour):
    refused = stage.run("join", str(tiny), "--name", "tiny", "--route", "/tiny", *COMMAND, behaviour, expect=1).stderr
    assert "Its last lines:" in refused
    assert "tiny has been removed; stage0 stays up without it." in refused
    assert "tiny" not in services(stage)
    assert [i["state"] for i in stage.instances()] == ["UP"] * 3
    assert not [name for name in stage.names() if "tiny_service.py" in name]


def test_an_optional_service_that_does_not_serve_is_left_out_of_up(copied_workshop):
    server = copied_workshop.repository / "stage2-microservices" / "stats" / "server.js"
    server.write_text("process.exit(3)\n")
    result = copied_workshop.run("up", "stage0", "--with", "stats", expect=1)
    assert re.search(r"stats_v1_\w{4} does not start\. Its last lines:", result.stdout)
    assert "stats has been removed; stage0 stays up without it." in result.stdout
    assert "stats could not be started" in result.stderr
    assert requests.get(copied_workshop.url, timeout=5).status_code == 200
    assert "stats" not in services(copied_workshop)
    assert (
        "`./workshop join stage2-microservices/stats --name stats`"
        in copied_workshop.run(
            "up", "stage0", "--with", "stats", "--port", copied_workshop.url.split(":")[2], expect=1
        ).stderr
    )


def test_down_ends_what_has_joined(workshop, tiny):
    workshop.up()
    workshop.run("join", str(tiny), "--name", "tiny", "--route", "/tiny", *COMMAND)
    workshop.run("down")
    assert workshop.processes() == []
    workshop.up()
    assert "tiny" not in services(workshop)


# From a working tree


def test_a_working_tree_serves_and_restarts_when_a_file_changes(stage, tiny, until):
    stage.run("join", str(tiny), "--name", "tiny", "--route", "/tiny", "--dev", *COMMAND)
    answer = lambda: requests.get(f"{stage.url}/tiny", timeout=5).text  # noqa: E731
    assert answer() == "ok"
    assert served_by(stage, "/tiny").startswith("tiny_vdev_")
    assert "as one instance" in stage.run("scale", "tiny=2", expect=1).stderr

    code = tiny / "tiny_service.py"
    good = code.read_text()
    code.write_text(good.replace('b"ok"', 'b"OK"'))
    until(lambda: answer() == "OK", 15, "the change is served")
    code.write_text("broken(")  # it waits for the next change, and is not started again and again
    until(lambda: "waiting for a change" in stage.run("logs", "tiny").stdout, 15, "it waits")
    code.write_text(good)
    until(lambda: answer() == "ok", 15, "the correction is served")

    before = stage.instances("tiny")[0]["pid"]
    stage.run("kill", "tiny")
    until(lambda: stage.instances("tiny")[0]["pid"] not in (None, before) and answer() == "ok", 15, "it is back")
    stage.run("leave", "tiny")
    assert "tiny" not in services(stage)
    assert code.read_text() == good


def test_a_working_tree_joins_the_instances_of_a_service_and_is_counted_by_no_command(stage, until):
    folder = str(REPOSITORY / "stage0-monolith")
    stage.run("join", folder, "--name", "monolith", "--dev", "--weight", "10")
    dev = [i["id"] for i in stage.instances() if i["version"] == "vdev"]
    assert len(dev) == 1
    until(lambda: served_by(stage, "/api/messages") == dev[0], 20, "it gets its share")
    assert "already" in stage.run("join", folder, "--name", "monolith", "--dev", expect=1).stderr

    stage.run("scale", "monolith=2")
    stage.run("restart", "monolith")
    stage.run("upgrade", "monolith")
    assert sorted(i["version"] for i in stage.instances()) == ["v1", "v1", "vdev"]
    assert "has an instance from your working tree" in stage.run("evolve", "stage1", "--yes", expect=1).stderr
    stage.run("leave", "monolith")
    assert [i["version"] for i in stage.instances()] == ["v1", "v1"]


# Services that joined by themselves, through the registry


def test_a_foreign_service_is_listed_and_the_commands_say_why_they_cannot_act(stage, until):
    foreign = stage.registry()
    stranger = Backend("stranger", ["/stranger"], upstreams={"stranger-1": Upstream("127.0.0.1", 9)})
    foreign.register(stranger, "stranger-1")
    until(lambda: "stranger" in services(stage), 5, "it is listed")
    shown = services(stage)["stranger"]
    assert (shown["origin"], shown["routes"], shown["version"]) == ("foreign", ["/stranger"], "")
    assert [i["id"] for i in shown["instances"]] == ["stranger-1"]
    foreign.register(stranger, "stranger-1")
    assert services(stage)["monolith"]["origin"] == "stage"
    assert "(foreign)" in stage.run("status").stdout
    for command in (
        ["scale", "stranger=2"],
        *([name, "stranger"] for name in ("kill", "logs", "stop", "upgrade", "leave")),
    ):
        foreign.register(stranger, "stranger-1")  # its key expires after 10 s
        refused = stage.run(*command, expect=1).stderr
        assert "stranger registered itself in etcd, at 127.0.0.1:9. The platform did not start it" in refused, command
    foreign.register(stranger, "stranger-1")
    assert "registered itself" in stage.run("kill", "stranger-1", expect=1).stderr
    foreign.forget("stranger")
