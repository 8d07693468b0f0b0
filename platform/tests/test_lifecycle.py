"""Up, down, and everything that can go wrong on the way, as a user meets it: sentences, exit codes, nothing left."""

import dataclasses
import fcntl
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import termios
import time
from urllib.parse import urlsplit

import psutil
import pytest
import requests
from tests.privileges import as_root
from tests.workshops import REPOSITORY, SITES

from workshop import binaries, ports, processes
from workshop.registry import Backend, Upstream

UP_TAKES = {("process", "stage0"): 6, ("process", "stage2"): 8, ("docker", "stage0"): 20, ("docker", "stage2"): 30}  # s
MEMORY = 800  # MB
BREAKING = ("from flask import Blueprint", "from flask import NoBlueprint")  # compiles, and fails when it is run


def listening_ports(pids) -> set[int]:
    return {c.laddr.port for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN and c.pid in pids}


@pytest.mark.parametrize("stage_name", ["stage0", "stage2"])
def test_up_after_a_down_is_quick_and_small_and_down_leaves_nothing(workshop, print_figure, stage_name):
    workshop.stage = stage_name
    workshop.up()
    workshop.run("down")
    started = time.monotonic()
    workshop.run("up", stage_name)
    took = time.monotonic() - started
    status = workshop.status()
    assert requests.get(status["url"], timeout=5).status_code == 200
    memory = processes.memory(processes.of(workshop.run_folder))
    print_figure(f"`up {stage_name}` after a `down`: {took:.1f} s, {memory:.0f} MB (PSS)")
    assert took < UP_TAKES[workshop.driver, stage_name]
    assert memory < MEMORY

    listening = listening_ports(set(workshop.processes())) | {
        urlsplit(status[url]).port for url in ("url", "stats_url")
    }
    # The page, statistics, internal, etcd, Redis, an instance; of containers, only the first two are on this machine.
    assert len(listening) >= {"process": 6, "docker": 2}[workshop.driver]
    started = time.monotonic()
    workshop.run("down")
    print_figure(f"`down` of {stage_name}: {time.monotonic() - started:.1f} s")
    assert workshop.processes() == []
    assert not listening & {c.laddr.port for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN}


def test_up_of_what_is_up_says_so_and_changes_nothing(stage):
    before = stage.status()
    again = stage.run("up", "stage0", "--port", before["url"].split(":")[2].strip("/"))

    assert "stage0 is up already" in again.stdout
    assert stage.status() == before
    assert "`./workshop down` comes first" in stage.run("up", "stage0", "--port", "1", expect=1).stderr


def test_a_name_is_served_that_up_was_given_and_no_other_one(workshop):
    workshop.up("--host", "Chat.Example")
    instances = [f"http://{i['address']}" for i in workshop.instances("monolith")]
    for address in (workshop.url, workshop.status()["stats_url"], *instances):
        for name, status in (("chat.example", 200), ("other.example", 421)):
            headers = {"Host": f"{name}:8080"}
            assert requests.get(address, headers=headers, timeout=5).status_code == status
    origin = {"Host": "chat.example:8080", "Origin": "https://chat.example:8080"}
    assert requests.delete(f"{workshop.url}/api/tokens", headers=origin, timeout=5).status_code == 401
    again = ("up", "stage0", "--port", workshop.url.rpartition(":")[2], "--host")
    workshop.run(*again, "chat.example")
    assert "without the name a.example: `./workshop down`" in workshop.run(*again, "a.example", expect=1).stderr


@pytest.mark.parametrize("name", ["chat.example:8080", "http://chat.example", "a b", "x; deny", "", "-x"])
def test_what_is_no_host_name_is_refused(workshop, name):
    refused = workshop.run("up", "stage0", "--host", name, expect=2)
    assert "is not a host name. Use a name such as chat.example" in refused.stderr


def test_down_when_nothing_is_up_says_so(workshop):
    assert "Nothing was up" in workshop.run("down").stdout


def test_commands_that_need_a_stage_name_up(workshop):
    of_a_service = ["kill", "stop", "start", "restart", "build", "upgrade", "rollback", "canary", "promote", "abort"]
    commands = ["scale monolith=2", *(f"{command} monolith" for command in of_a_service)]
    for arguments in [command.split() for command in [*commands, "status", "open", "probe", "logs"]]:
        result = workshop.run(*arguments, expect=1)
        assert "Error: No" in result.stderr, arguments


def test_status_lists_services_and_stores(stage):
    status = stage.status()

    assert set(status) == {"stage", "url", "stats_url", "driver", "db", "services", "stores"}
    for instance in stage.instances():
        assert set(instance) == {"id", "version", "address", "pid", "state"}
        assert instance["id"].startswith("monolith_v1_")
        assert psutil.Process(instance["pid"]).environ()["INSTANCE"] == instance["id"]
    assert {store["state"] for store in status["stores"]} == {"UP"}


@pytest.mark.parametrize(("api", "ls"), [("v2", "ls -r /services"), ("v3", "get --prefix --keys-only /services/")])
def test_a_stage_keeps_its_registry_api_and_etcdctl_fits_it(workshop, api, ls):
    workshop.run("up", "stage0", "--registry", api)

    (instance,) = workshop.instances()
    assert f"/services/monolith/upstream/{instance['id']}" in workshop.run("etcdctl", *ls.split()).stdout
    assert f"with etcd's {api} API" in workshop.run("doctor").stdout
    again, other = ["up", "stage0", "--port", workshop.url.split(":")[-1]], {"v2": "v3", "v3": "v2"}[api]
    assert f"is up already, with {api}: " in workshop.run(*again, "--registry", other, expect=1).stderr
    assert "stage0 is up already." in workshop.run(*again).stdout


@pytest.mark.parametrize("sent", [*processes.INTERRUPTS, signal.SIGKILL], ids=lambda sent: sent.name)
def test_an_interrupted_up_leaves_nothing_that_the_next_up_minds(workshop, until, sent):
    process = workshop.popen("up", "stage0", start_new_session=True)
    until(lambda: len(workshop.processes()) > 4, 20, "some of it runs")
    os.killpg(process.pid, sent)
    process.communicate(timeout=30)
    if sent in processes.INTERRUPTS:
        assert workshop.processes() == []

    workshop.up()
    assert [i["state"] for i in workshop.instances()] == ["UP"]


def test_a_supervisor_that_was_killed_is_cleaned_up_after_by_down(workshop):
    stores = workshop.up()["stores"]
    used = [urlsplit(f"//{store['address']}") for store in stores if ":" in store["address"]]
    assert len(used) == 2 and all(ports.answers(address.port, address.hostname) for address in used)  # etcd and Redis
    (supervisord,) = [p for p in map(psutil.Process, workshop.processes()) if p.name() == "supervisord"]
    supervisord.kill()
    supervisord.wait(5)

    assert "The process supervisor is gone" in workshop.run("status", expect=1).stderr
    assert "which nothing supervised any more" in workshop.run("down").stdout
    assert workshop.processes() == []
    # Of the addresses of containers no more can be said: some networks answer for whoever is not there.
    assert not any(ports.answers(address.port) for address in used if address.hostname == ports.HOST)


def test_a_run_folder_that_was_removed_while_it_was_in_use(workshop):
    workshop.up()
    before = workshop.processes()
    shutil.rmtree(workshop.run_folder)

    workshop.up()
    assert not set(before) & set(workshop.processes())
    assert [i["state"] for i in workshop.instances()] == ["UP"]


def test_stop_answers_503_and_start_brings_it_back(stage):
    stage.run("stop", "monolith")
    answer = requests.get(stage.url, timeout=5)
    assert answer.status_code == 503
    assert answer.json()["request_id"]
    assert {i["state"] for i in stage.instances()} == {"DOWN"}
    assert "`./workshop start monolith` comes first" in stage.run("scale", "monolith=2", expect=1).stderr

    stage.run("start", "monolith")
    assert {i["state"] for i in stage.instances()} == {"UP"}
    assert requests.get(stage.url, timeout=5).status_code == 200


def test_an_interrupted_down_leaves_nothing_that_the_next_up_minds(workshop, until):
    workshop.up()
    process = workshop.popen("down", start_new_session=True)
    until(lambda: "beat" not in str(workshop.names()), 20, "some of it has ended")
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=30)

    assert requests.get(workshop.up()["url"], timeout=5).status_code == 200


def begun_to_scale(stage, until, **options) -> subprocess.Popen:
    """Return a `scale` that is adding instances of the monolith, and needs some seconds for that."""

    def sidecars() -> int:
        return sum("workshop.sidecar" in name for name in stage.names())

    before = sidecars()
    process = stage.popen("scale", "monolith=9", start_new_session=True, **options)
    until(lambda: sidecars() > before, 20, "some are being added")
    return process


@pytest.mark.parametrize("sent", processes.INTERRUPTS, ids=lambda sent: sent.name)
def test_an_interrupted_scale_leaves_what_was_there(stage, until, sent):
    before = [i["id"] for i in stage.instances()]
    process = begun_to_scale(stage, until)
    process.send_signal(sent)
    _, said = process.communicate(timeout=30)

    assert (process.returncode, said.strip()) == (1, "Aborted!")
    assert [(i["id"], i["state"]) for i in stage.instances()] == [(name, "UP") for name in before]
    assert "monolith: 4 in rotation" in stage.run("scale", "monolith=4").stdout


def test_a_scale_whose_terminal_is_closed_leaves_what_was_there(stage, until):
    before = [i["id"] for i in stage.instances()]
    ours, terminal = pty.openpty()

    def take_terminal() -> None:
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
        for stream in range(3):
            os.dup2(terminal, stream)

    process = begun_to_scale(stage, until, preexec_fn=take_terminal)
    os.close(terminal)
    os.close(ours)
    process.communicate(timeout=30)

    assert [(i["id"], i["state"]) for i in stage.instances()] == [(name, "UP") for name in before]


def test_an_interrupt_while_instances_are_removed_waits_until_they_are(stage, until):
    process = stage.popen("scale", "monolith=1", start_new_session=True)
    until(lambda: any(i["state"] != "UP" for i in stage.instances()), 20, "some are leaving")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)

    assert [i["state"] for i in stage.instances()] == ["UP"]
    assert "monolith: 2 in rotation" in stage.run("scale", "monolith=2").stdout


def test_scaling_down_takes_the_dead_first(stage):
    dead, *living = [i["id"] for i in stage.instances()]
    stage.run("kill", dead)
    stage.run("scale", "monolith=2")

    assert [i["id"] for i in stage.instances()] == living


def test_a_foreign_instance_in_the_registry_is_shown_and_left_alone(stage, until):
    foreign = stage.registry()
    backend = Backend("monolith", ["/"], sticky=["/socket.io"], upstreams={"stranger": Upstream("127.0.0.1", 9)})
    foreign.register(backend, "stranger")
    until(lambda: "stranger" in [i["id"] for i in stage.instances()], 5, "the stranger is shown")
    stage.run("scale", "monolith=4")
    stage.run("scale", "monolith=3")

    assert len([i for i in stage.instances() if i["id"] != "stranger"]) == 3
    foreign.deregister("monolith", "stranger")
    until(lambda: "stranger" not in [i["id"] for i in stage.instances()], 5, "the stranger is gone")


def test_a_restart_that_failed_can_be_repeated_or_undone(copied_workshop):
    url = copied_workshop.up()["url"]
    copied_workshop.run("scale", "monolith=2")
    edit(copied_workshop, "parley/health.py", *BREAKING)
    assert "The migration of monolith failed" in copied_workshop.run("restart", "monolith", expect=1).stderr

    copied_workshop.run("start", "monolith")  # what was there before
    assert [(i["version"], i["state"]) for i in copied_workshop.instances()] == [("v1", "UP")] * 2
    edit(copied_workshop, "parley/health.py", BREAKING[1], f"# mended\n{BREAKING[0]}")
    copied_workshop.run("restart", "monolith")
    assert [(i["version"], i["state"]) for i in copied_workshop.instances()] == [("v3", "UP")] * 2
    assert requests.get(url, timeout=5).status_code == 200


def test_logs_follows_an_instance_that_is_added_meanwhile(stage):
    before = {i["id"] for i in stage.instances()}
    follower = stage.popen("logs", "monolith", "-f", start_new_session=True)
    stage.run("scale", "monolith=4")
    (new,) = {i["id"] for i in stage.instances()} - before
    for line in follower.stdout:  # ends with the test's time-out, if it never comes
        if line.startswith(new):
            break
    os.killpg(follower.pid, signal.SIGINT)
    follower.communicate(timeout=10)
    assert follower.returncode == 0


def test_restart_deploys_what_has_been_edited(copied_workshop):
    url = copied_workshop.up()["url"]
    page = copied_workshop.repository / "stage0-monolith" / "parley" / "ui" / "templates" / "index.html"
    page.write_text(page.read_text().replace("<title>Parley", "<title>Edited Parley"))
    assert "Edited Parley" not in requests.get(url, timeout=5).text  # instances run from a build

    copied_workshop.run("restart", "monolith")
    assert "Edited Parley" in requests.get(url, timeout=5).text
    assert [i["version"] for i in copied_workshop.instances()] == ["v2"]


def test_data_is_kept_over_down_and_a_database_that_was_removed_is_made_again(workshop):
    url = workshop.up()["url"]
    user = {"nickname": "keeper", "password": "a long password"}
    assert requests.post(f"{url}api/users", json=user, timeout=5).status_code == 201
    workshop.run("down")
    url = workshop.up()["url"]
    assert requests.post(f"{url}api/users", json=user, timeout=5).status_code == 409

    workshop.run("down")
    for file in (workshop.run_folder / "data").glob("parley.db*"):
        file.unlink()
    url = workshop.up()["url"]
    assert requests.post(f"{url}api/users", json=user, timeout=5).status_code == 201
    workshop.run("down", "--wipe")
    assert not workshop.run_folder.exists()


def test_secrets_are_readable_by_their_owner_only(stage):
    run = stage.run_folder
    for file in [run / "secrets.json", *(run / "instances").glob("*.json"), *(run / "supervisor").rglob("*.conf")]:
        assert file.stat().st_mode & 0o077 == 0, file


def test_a_setting_that_was_given_at_up_holds_for_instances_that_come_later(stage):
    stage.run("scale", "monolith=4")  # the tests gave LINK_ALLOWED_NETWORKS to `up`

    given = {psutil.Process(i["pid"]).environ()["LINK_ALLOWED_NETWORKS"] for i in stage.instances()}
    assert given == {SITES[stage.driver]}


def test_logs_shows_the_last_lines_of_a_service(stage):
    assert "registered at" in stage.run("logs", "monolith").stdout
    assert "there are" in stage.run("logs", "nobody", expect=1).stderr


# Bad input


def fails_and_leaves_nothing(workshop, *arguments: str, exit_code: int = 1) -> str:
    result = workshop.run(*arguments, expect=exit_code)
    assert workshop.processes() == []
    return result.stderr


def test_an_unknown_stage(workshop):
    assert "There is no stage 'stage9': choose stage0" in fails_and_leaves_nothing(workshop, "up", "stage9")


def test_a_port_in_use_is_named_with_its_holder(workshop):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        message = fails_and_leaves_nothing(workshop, "up", "stage0", "--port", str(port))
    assert f"Port {port} is taken by" in message
    assert f"process {os.getpid()}" in message
    assert "--port" in message


@as_root  # to hide a program in a mount namespace
def test_a_missing_binary_is_named(workshop):
    hidden = binaries.find("haproxy")
    without_haproxy = f"mount --bind /dev/null {hidden} && exec {REPOSITORY}/workshop up stage0"
    result = subprocess.run(
        ["unshare", "--mount", "sh", "-c", without_haproxy],
        capture_output=True,
        text=True,
        timeout=30,
        env=os.environ | {"WORKSHOP_RUN_DIR": str(workshop.run_folder)},
    )
    assert result.returncode == 1
    assert result.stderr.startswith("Error: haproxy is missing: run `./workshop setup`")
    assert workshop.processes() == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('routes = ["/"]', 'routes = ["chat"]', "line 15, key services.monolith.routes: 'chat' is no path prefix"),
        ('routes = ["/"]', 'rotues = ["/"]', "line 15, key services.monolith.rotues: there is no such key"),
        ('queue.kind = "redis"', 'queue.kind = "kafka"', "line 12, key stores.queue.kind: 'kafka' is not possible"),
        ('routes = ["/"]', "routes = [", "stage.toml: "),
    ],
)
def test_a_malformed_stage_toml_is_named_with_line_and_key(copied_workshop, old, new, expected):
    file = copied_workshop.repository / "stage0-monolith" / "stage.toml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))

    message = fails_and_leaves_nothing(copied_workshop, "up", "stage0")
    assert str(file) in message
    assert expected in message


def edit(workshop, file: str, old: str, new: str) -> None:
    path = workshop.repository / "stage0-monolith" / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_a_service_that_crashes_at_start_is_shown_with_its_last_lines(copied_workshop):
    edit(copied_workshop, "stage.toml", "parley:create_app()", "parley:create_no_app()")

    message = fails_and_leaves_nothing(copied_workshop, "up", "stage0")
    assert re.search(r"monolith_v1_\w{4} does not start\. Its last lines:", message)
    assert "create_no_app" in message


def test_a_program_that_crashes_later_than_its_start_is_shown_too(copied_workshop):
    edit(copied_workshop, "stage.toml", '"gunicorn", ', '"sh", "-c", "sleep 1.5; exit 3", ')

    started = time.monotonic()
    assert "does not start" in fails_and_leaves_nothing(copied_workshop, "up", "stage0")
    assert time.monotonic() - started < 20


def test_a_migration_that_fails_is_shown(copied_workshop):
    edit(copied_workshop, "parley/health.py", *BREAKING)

    message = fails_and_leaves_nothing(copied_workshop, "up", "stage0")
    assert "The migration of monolith failed" in message
    assert BREAKING[1] in message


@pytest.mark.parametrize("command", ['["celery", "--app", "parley.worker", "beat"', '["flask"'])
def test_a_command_that_does_not_exist_is_named(copied_workshop, command):
    edit(copied_workshop, "stage.toml", command, command.replace('["', '["no-'))

    message = fails_and_leaves_nothing(copied_workshop, "up", "stage0")
    assert command[2:].split('"')[0] in message


def test_a_folder_with_a_blank_in_its_path(workshop):
    inside = dataclasses.replace(workshop, run_folder=workshop.run_folder / "with blank")
    assert "has blanks or unusual characters" in fails_and_leaves_nothing(inside, "up", "stage0")


@as_root  # to give a folder away
def test_a_folder_of_another_user(workshop):
    os.chown(workshop.run_folder, 65534, 65534)
    for command in (["up", "stage0"], ["status"], ["down"]):
        assert "belongs to user 65534" in workshop.run(*command, expect=1).stderr
    assert "belongs to user 65534" in workshop.run("doctor", expect=2).stdout
    os.chown(workshop.run_folder, 0, 0)


def test_a_service_that_does_not_compile_is_named(copied_workshop):
    file = copied_workshop.repository / "stage0-monolith" / "parley" / "health.py"
    file.write_text(file.read_text() + "\ndef broken(:\n")

    assert "does not compile" in fails_and_leaves_nothing(copied_workshop, "up", "stage0")


def test_wrong_arguments_of_scale_and_kill(stage):
    for none in ("0", "-1"):
        assert "use `./workshop stop monolith`" in stage.run("scale", f"monolith={none}", expect=1).stderr
    assert "it has monolith, worker, beat" in stage.run("scale", "nobody=2", expect=1).stderr
    assert "use `restart monolith`" in stage.run("restart", "worker", expect=1).stderr
    assert "not of the form SERVICE=N" in stage.run("scale", "monolith", expect=2).stderr
    assert "There is no service or instance 'nobody'" in stage.run("kill", "nobody", expect=1).stderr
    assert "SIGCONT to process" in stage.run("kill", stage.instances()[0]["id"], "--signal", "CONT").stdout
    assert "there is no signal" in stage.run("kill", "monolith", "--signal", "NONE", expect=2).stderr


def test_two_commands_that_change_what_runs_do_not_get_into_each_others_way(stage, until):
    first = stage.popen("scale", "monolith=4")
    until(lambda: f"process {first.pid}" in (stage.run_folder / "lock").read_text(), 10, "the first one is at work")
    assert "`./workshop scale" in stage.run("scale", "monolith=3", expect=1).stderr
    _, err = first.communicate(timeout=60)
    assert first.returncode == 0, err
