def test_health_says_who_answers(client):
    answer = client.get("/healthz")
    assert answer.json == {"status": "ok", "service": "service", "version": "v0", "instance": "service_v1_test"}


def test_health_asks_no_store(make_app, environ):
    app = make_app({**environ, "DATABASE_URL": "sqlite:////nowhere/parley.db", "REDIS_URL": "redis://127.0.0.1:1/0"})
    assert app.test_client().get("/healthz").status_code == 200


def test_health_asks_no_other_service(client, others):
    others.away = {"tokens", "users"}
    assert client.get("/healthz").status_code == 200
    assert others.calls == []
