"""What the load-balancer manager makes of an instance that comes back while it has not quite left."""

from types import SimpleNamespace

import pytest

from workshop.balancer import Balancer
from workshop.registry import Backend, RegistryUnavailable, Upstream

A = Upstream("127.0.0.1", 1)


class Runtime:
    """An HAProxy with one instance, which has a WebSocket; it notes down what is shut."""

    def __init__(self):
        self.servers = {"a": {"addr": A.address, "status": "UP", "weight": "100"}}
        self.open = [SimpleNamespace(is_websocket=True)]
        self.shut_times = 0

    def stop_sending(self, service: str, name: str) -> None:
        self.servers[name]["status"] = "MAINT"

    def sessions(self, service: str, name: str) -> list[SimpleNamespace]:
        return self.open

    def shut(self, session: SimpleNamespace) -> None:
        self.shut_times += 1
        self.open = []

    def del_server(self, service: str, name: str) -> bool:
        if self.servers[name]["status"] != "MAINT":
            return False
        del self.servers[name]
        return True

    def add_server(self, service: str, name: str, upstream: Upstream) -> None:
        self.servers[name] = {"addr": upstream.address, "status": "UP", "weight": str(upstream.weight)}


def refuse(*arguments) -> None:
    raise RegistryUnavailable("etcd is away")


def test_an_instance_that_comes_back_before_its_leaving_was_confirmed_is_left_alone(tmp_path):
    (tmp_path / "haproxy.cfg").touch()
    runtime = Runtime()
    manager = Balancer(SimpleNamespace(confirm_drained=refuse), runtime, {}, tmp_path)
    manager.reconcile(Backend("tiny", ["/tiny"]), runtime.servers)
    manager.drain()
    with pytest.raises(RegistryUnavailable):
        manager.drain()
    assert (runtime.shut_times, runtime.servers) == (1, {})

    manager.reconcile(Backend("tiny", ["/tiny"], upstreams={"a": A}), runtime.servers)
    runtime.open = [SimpleNamespace(is_websocket=True)]
    manager.drain()

    assert runtime.shut_times == 1
    assert list(runtime.servers) == ["a"]
