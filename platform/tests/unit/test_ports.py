"""Addresses of containers; what there is to say about ports is said where servers are started."""

import ipaddress

import pytest

from workshop import ports
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
