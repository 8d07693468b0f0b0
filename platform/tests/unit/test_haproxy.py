"""What is written for HAProxy; whether HAProxy does what is meant is tested with a real one."""

import re
from pathlib import Path

from workshop import haproxy
from workshop.registry import Backend, Upstream
from workshop.state import Up

PORTS = {"public": 8080, "internal": 20001, "statistics": 8081}
FRONTENDS = Up("test", "process", "sqlite", PORTS, {}, {}, {}).frontends
FOLDER = Path("/run/here")


def tiny(**upstreams) -> dict[str, Backend]:
    return {"tiny": Backend("tiny", ["/tiny"], upstreams=upstreams)}


def test_each_instance_is_a_server_of_its_services_backend():
    config = haproxy.render(tiny(a=Upstream("127.0.0.1", 1), b=Upstream("127.0.0.1", 2, 5)), FRONTENDS, FOLDER)

    backend = config[config.index("backend tiny") :]
    assert "    server a 127.0.0.1:1 weight 100 check" in backend
    assert "    server b 127.0.0.1:2 weight 5 check" in backend


def test_other_instances_leave_the_frame_as_it_is():
    one, two = tiny(a=Upstream("127.0.0.1", 1)), tiny(b=Upstream("127.0.0.1", 2))

    assert haproxy.render(one, FRONTENDS, FOLDER) != haproxy.render(two, FRONTENDS, FOLDER)
    assert haproxy.frame(haproxy.render(one, FRONTENDS, FOLDER)) == haproxy.frame(
        haproxy.render(two, FRONTENDS, FOLDER)
    )


def test_another_service_is_another_frame():
    one = tiny()
    two = one | {"other": Backend("other", ["/other"])}

    assert haproxy.frame(haproxy.render(one, FRONTENDS, FOLDER)) != haproxy.frame(
        haproxy.render(two, FRONTENDS, FOLDER)
    )


def test_only_a_service_with_sticky_prefixes_sets_a_cookie():
    assert haproxy.COOKIE not in haproxy.render(tiny(), FRONTENDS, FOLDER)
    sticky = {"tiny": Backend("tiny", ["/"], sticky=["/socket.io"])}
    assert "Path=/socket.io; HttpOnly; SameSite=Lax" in haproxy.render(sticky, FRONTENDS, FOLDER)


def test_everything_listens_on_loopback_only():
    binds = [line.split()[1] for line in haproxy.render(tiny(), FRONTENDS, FOLDER).splitlines() if "bind " in line]

    assert binds == ["127.0.0.1:8080", "127.0.0.1:20001", "127.0.0.1:8081"]


def test_in_a_virtual_machine_only_the_page_and_the_statistics_are_at_its_interface():
    up = Up("test", "process", "sqlite", PORTS, {}, {}, {}, bind="0.0.0.0")  # noqa: S104
    listening = (up.frontends.public, up.frontends.statistics, up.frontends.internal)
    assert listening == ("0.0.0.0:8080", "0.0.0.0:8081", "127.0.0.1:20001")
    assert up.frontends.hosts == ["127.0.0.1", "localhost", "[::1]"]


def test_each_frontend_knows_the_names_of_loopback_and_those_of_up():
    up = Up("test", "docker", "postgres", PORTS, {}, {}, {}, names=["chat.example"], network="172.18.0.0/16")
    config = haproxy.render(tiny(), up.frontends, FOLDER)

    balancer = up.frontends.internal.partition(":")[0]
    assert config.count(f"host_only -m str 127.0.0.1 localhost [::1] {balancer} chat.example }}") == 3


def test_a_full_frontend_leaves_the_others_their_connections():
    config = haproxy.render(tiny(), FRONTENDS, FOLDER)
    all_together, *each = (int(number) for number in re.findall(r"(?m)^ +maxconn (\d+)$", config))

    assert len(each) == config.count("\nfrontend ")
    assert sum(each) < all_together
    assert 2 * all_together < 4096 - 200  # file descriptors; 200 for listeners, health checks and the log


def test_the_maps_keys_end_with_a_slash_so_that_whole_segments_count():
    assert haproxy.render_map({"/": "ui", "/api/users": "users"}) == "/ ui\n/api/users/ users\n"
