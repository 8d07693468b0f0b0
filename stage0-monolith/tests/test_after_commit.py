"""Whatever fails after a commit: the write is stored, and the answer says so."""

import pytest


def fail(*_args, **_kwargs):
    raise RuntimeError("swordfish")


def test_a_push_that_fails_changes_no_answer_about_a_user(client, auth, ann, monkeypatch, caplog):
    monkeypatch.setattr("parley.push.MessageQueue.emit", fail)
    registered = client.post("/api/users", json={"nickname": "eve", "password": "correct horse"})
    assert registered.status_code == 201
    assert client.get(registered.headers["Location"]).json == registered.json
    headers = auth.headers(ann)
    assert client.put(f"/api/users/{ann}", json={"nickname": "anna"}, headers=headers).status_code == 204
    for call in (client.put, client.delete):
        assert call("/api/users/me", headers=headers).status_code == 204
    assert client.get(f"/api/users/{ann}").json["nickname"] == "anna"
    assert caplog.text.count("After the commit, push_model failed") == 4


@pytest.mark.parametrize("what", ["parley.push.MessageQueue.emit", "parley.tasks.expand_links.apply_async"])
def test_what_fails_after_it_changes_no_answer_about_a_message(client, auth, ann, monkeypatch, caplog, what):
    monkeypatch.setattr(what, fail)
    headers, source = auth.headers(ann), "see https://example.com/"
    posted = client.post("/api/messages", json={"source": source}, headers=headers)
    assert posted.status_code == 201
    changed = client.put(posted.headers["Location"], json={"source": f"{source}2"}, headers=headers)
    assert changed.status_code == 204
    assert client.get(posted.headers["Location"]).json["source"] == f"{source}2"
    assert caplog.text.count("After the commit, ") == 2
