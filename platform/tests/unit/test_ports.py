"""Addresses of containers, and the default ports of pages; taken ports are tested where servers are started."""

import ipaddress
import socket

import pytest
from tests import devcontainer

from workshop import paths, ports
from workshop.errors import WorkshopError


def test_an_address_is_nobody_elses_as_long_as_it_is_claimed(tmp_path):
    network = "192.0.2.0/25"  # 16 to 63: between the servers' and Docker's
    claims = [ports.claim_address(network, tmp_path) for _ in range(48)]
    numbers = {int(ipaddress.ip_address(address)) & 127 for address, _ in claims}
    assert numbers == set(range(16, 64))
    with pytest.raises(WorkshopError, match="none is free"):
        ports.claim_address(network, tmp_path)

    address, claim = claims.pop()
    claim.close()
    claims.append(ports.claim_address(network, tmp_path))
    assert claims[-1][0] == address
    for _, claim in claims:
        claim.close()


def test_the_files_that_cannot_read_the_list_of_default_ports_agree_with_it():
    pages, numbers = list(ports.DEFAULTS), list(ports.DEFAULTS.values())
    assert numbers == list(range(numbers[0], numbers[0] + len(pages)))  # so that a container publishes one range
    assert pages[:2] == ["chat", "statistics"]  # the statistics are one above, as with `up --port`
    config = devcontainer.config()
    assert config["forwardPorts"] == numbers
    labels = {number: attributes["label"] for number, attributes in config["portsAttributes"].items()}
    assert labels == {str(number): page for page, number in ports.DEFAULTS.items()}
    published = f"{numbers[0]}-{numbers[-1]}"
    image = (paths.REPOSITORY / "platform" / "docker" / "workshop.Dockerfile").read_text(encoding="utf-8")
    assert f"EXPOSE {published}\n" in image
    readme = (paths.REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert f"--publish 127.0.0.1:{published}:{published} " in readme


def test_a_page_takes_another_port_than_a_taken_default_but_not_than_one_that_was_asked_for(monkeypatch):
    with socket.create_server((ports.HOST, 0)) as server:
        taken = server.getsockname()[1]
        monkeypatch.setitem(ports.DEFAULTS, "slides", taken)
        said = []
        chosen = ports.choose("slides", None, said.append)
        assert chosen in ports.RANGE
        assert said == [f"{ports.problem(taken)}: {chosen} instead."]
        with pytest.raises(WorkshopError, match="choose another one with --port"):
            ports.choose("slides", taken, said.append)
    assert ports.choose("slides", None, said.append) == taken
    assert ports.choose("slides", 0, said.append) == 0
