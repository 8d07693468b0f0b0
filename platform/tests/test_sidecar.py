"""The sidecar, with a real etcd and a service of thirty lines."""

import signal
import time

import psutil

from workshop.registry import HEARTBEAT, TTL, RegistryUnavailable


def registered(service_registry, service="tiny"):
    services = service_registry.snapshot().services
    return services[service].upstreams if service in services else {}


def seconds_left(service_registry) -> int:
    return service_registry.etcd.ttl("/services/tiny/upstream/tiny_v1_aaaa") or 0


def service_of(sidecar):
    return psutil.Process(sidecar.pid).children()[0]


def test_an_instance_is_registered_once_it_is_healthy_and_its_key_is_kept_alive(start_sidecar, service_registry, until):
    start_sidecar()
    until(lambda: "tiny_v1_aaaa" in registered(service_registry), 10, "registered")

    for _ in range(2):
        until(lambda: seconds_left(service_registry) < TTL - 1, TTL, "time passes")
        until(lambda: seconds_left(service_registry) >= TTL - 1, HEARTBEAT + 1, "refreshed")


def test_a_service_that_is_never_healthy_is_never_registered(start_sidecar, service_registry, folder, until):
    sidecar = start_sidecar(behaviour="sick")
    until(lambda: psutil.Process(sidecar.pid).children(), 5, "the service runs")
    time.sleep(1)  # the subject of this test: it has had time to register, and does not

    assert registered(service_registry) == {}


def test_a_service_that_crashes_at_its_start_ends_its_sidecar_with_a_log_line(start_sidecar, folder):
    sidecar = start_sidecar(behaviour="crash")

    assert sidecar.wait(10) == 1
    log = (folder / "tiny_v1_aaaa.log").read_text()
    assert "this service crashes at its start" in log
    assert "ended with status 1 at its start" in log


def test_a_service_that_dies_is_deregistered_at_once(start_sidecar, service_registry, until, print_figure):
    sidecar = start_sidecar()
    until(lambda: registered(service_registry), 10, "registered")

    killed = time.monotonic()
    service_of(sidecar).kill()
    until(lambda: not registered(service_registry), 2, "deregistered")
    print_figure(f"killed → deregistered: {1000 * (time.monotonic() - killed):.0f} ms")
    assert time.monotonic() - killed < 0.25
    assert sidecar.wait(5) == 1


def test_a_sidecar_killed_alone_takes_its_service_with_it(start_sidecar, service_registry, until):
    sidecar = start_sidecar()
    until(lambda: registered(service_registry), 10, "registered")
    service = service_of(sidecar)

    sidecar.kill()
    sidecar.wait(5)
    until(lambda: not service.is_running() or service.status() == psutil.STATUS_ZOMBIE, 2, "the service is gone")


def test_a_sidecar_that_was_stopped_and_continued_goes_on(start_sidecar, service_registry, folder, until):
    sidecar = start_sidecar()
    until(lambda: registered(service_registry), 10, "registered")
    service = service_of(sidecar)

    for _ in range(2):
        sidecar.send_signal(signal.SIGSTOP)
        time.sleep(HEARTBEAT + 1)  # the subject of this test: the stop outlasts what the sidecar waits for
        sidecar.send_signal(signal.SIGCONT)
        until(lambda: seconds_left(service_registry) >= TTL - 1, HEARTBEAT + 1, "refreshed")

    assert service.is_running()
    assert "deregistered" not in (folder / "tiny_v1_aaaa.log").read_text()


def test_an_instance_that_starts_again_under_its_name_replaces_the_address_of_its_earlier_life(
    start_sidecar, service_registry, until
):
    sidecar = start_sidecar()
    until(lambda: registered(service_registry), 10, "registered")
    old = registered(service_registry)["tiny_v1_aaaa"]
    sidecar.kill()
    sidecar.wait(5)

    start_sidecar()
    until(lambda: registered(service_registry).get("tiny_v1_aaaa") not in (None, old), 5, "the new address")


def test_an_instance_survives_a_registry_that_forgets_and_registers_again(start_sidecar, service_registry, etcd, until):
    sidecar = start_sidecar()
    until(lambda: registered(service_registry), 10, "registered")

    etcd.stop()
    time.sleep(HEARTBEAT + 1)  # the subject of this test: at least one heartbeat fails
    assert sidecar.poll() is None
    assert service_of(sidecar).is_running()
    etcd.start()
    until(lambda: can_ask(service_registry), 10, "etcd answers")
    service_registry.deregister("tiny", "tiny_v1_aaaa")
    until(lambda: registered(service_registry), HEARTBEAT + 2, "registered again")


def can_ask(service_registry) -> bool:
    try:
        return service_registry.snapshot() is not None
    except RegistryUnavailable:
        return False


def test_an_instance_starts_while_the_registry_is_away(start_sidecar, service_registry, etcd, until):
    etcd.stop()
    sidecar = start_sidecar()
    until(lambda: psutil.Process(sidecar.pid).children(), 5, "the service runs")
    etcd.start()

    until(lambda: can_ask(service_registry) and registered(service_registry), 10, "registered")


def test_sigterm_deregisters_and_then_ends_the_service(start_sidecar, service_registry, load_balancer, until):
    sidecar = start_sidecar()
    until(lambda: load_balancer.in_rotation("tiny"), 10, "in rotation")
    service = service_of(sidecar)

    sidecar.send_signal(signal.SIGTERM)
    assert sidecar.wait(10) == 0
    assert registered(service_registry) == {}
    assert not service.is_running()


def test_sigterm_without_a_load_balancer_is_bounded(start_sidecar, service_registry, until, print_figure):
    sidecar = start_sidecar()
    until(lambda: registered(service_registry), 10, "registered")

    asked = time.monotonic()
    sidecar.send_signal(signal.SIGTERM)
    assert sidecar.wait(20) == 0
    print_figure(f"SIGTERM → ended, without a load balancer to confirm: {time.monotonic() - asked:.1f} s")
