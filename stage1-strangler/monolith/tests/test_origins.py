import pytest


@pytest.mark.parametrize(
    ("headers", "status"), [({"Host": "evil.example"}, 421), ({"Origin": "http://evil.example"}, 403)]
)
def test_a_foreign_page_gets_no_connection(client, headers, status):
    """Socket.IO answers before Flask does, so it could skip the check."""
    for transport in ("polling", "websocket"):
        assert client.get(f"/socket.io/?EIO=4&transport={transport}", headers=headers).status_code == status
