"""A client that is generated from the OpenAPI document: each of its operations can be called, and is."""

from functools import partial

import pytest

METHODS = ("get", "post", "put", "delete")
PASSWORD = "correct horse"  # noqa: S105


class Generated:
    """Has a method for each operation of the document, with its parameters as keyword arguments."""

    def __init__(self, client, document: dict):
        self.client, self.document = client, document
        self.called: set[str] = set()
        self.operations = {}
        for path, item in document["paths"].items():
            for method in METHODS:
                if operation := item.get(method):
                    parameters = [*item.get("parameters", ()), *operation.get("parameters", ())]
                    described = method, path, [self.resolve(parameter) for parameter in parameters], operation
                    self.operations[operation["operationId"]] = described

    def __getattr__(self, name: str):
        return partial(self.call, name)

    def resolve(self, node: dict) -> dict:
        """Follow a reference within the document."""
        while reference := node.get("$ref"):
            node = self.document
            for name in reference.removeprefix("#/").split("/"):
                node = node[name]
        return node

    def call(self, name: str, body=None, token=None, password=None, **arguments):
        """Call an operation; the client checks the answer against the document."""
        method, path, parameters, operation = self.operations[name]
        places = {"path": {}, "query": {}, "header": {}}
        for parameter in parameters:
            key = parameter["name"].replace("-", "_").lower()
            if key in arguments:
                places[parameter["in"]][parameter["name"]] = arguments.pop(key)
        assert not arguments, f"{name} has no parameter {', '.join(arguments)}"
        assert (body is not None) == ("requestBody" in operation)
        schemes = {scheme for wanted in operation["security"] for scheme in wanted}
        assert {kind for kind, given in (("token", token), ("password", password)) if given} <= schemes
        if token:
            places["header"]["Authorization"] = f"Bearer {token}"
        options = {"params": places["query"], "headers": places["header"], "json": body, "auth": password}
        self.called.add(name)
        return self.client.send(method.upper(), path.format(**places["path"]), **options)


@pytest.fixture
def generated(anonymous, document):
    return Generated(anonymous, document.raw_schema)


def test_every_operation_of_the_document_can_be_called_by_a_client_made_from_it(generated, random_nickname):
    nickname = random_nickname()
    user = generated.register(body={"nickname": nickname, "password": PASSWORD}).json()
    assert generated.checkPassword(password=(nickname, PASSWORD)).json()["id"] == user["id"]
    token = generated.signIn(password=(nickname, PASSWORD)).json()["token"]

    assert generated.come(token=token).status_code == 204
    assert generated.listUsers(ids=user["id"], online=1, updated_since=0, limit=1).json()["users"][0]["online"]
    assert generated.showUser(user_id=user["id"]).json()["nickname"] == nickname
    assert generated.go(token=token).status_code == 204
    new = random_nickname()
    assert generated.changeUser(user_id=user["id"], body={"nickname": new}, token=token).status_code == 204

    posted = generated.postMessage(body={"source": "hi"}, token=token, idempotency_key="once")
    again = generated.postMessage(body={"source": "hi"}, token=token, idempotency_key="once")
    assert [posted.status_code, again.status_code, again.json()["id"]] == [201, 200, posted.json()["id"]]
    message_id = posted.json()["id"]
    assert generated.editMessage(message_id=message_id, body={"source": "ho"}, token=token).status_code == 204
    assert generated.showMessage(message_id=message_id).json()["source"] == "ho"
    assert generated.listMessages(limit=1).json()["messages"]

    assert generated.showStats(x_request_id="from-a-generated-client").status_code in (200, 204)
    assert generated.signOut(token=token, all=1).status_code == 204
    assert generated.called == generated.operations.keys()
