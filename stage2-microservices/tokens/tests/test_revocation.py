import time

from common.database import db, write_transaction
from parley.models.revocation import Revocation, sweep_expired


def test_the_sweep_deletes_what_has_expired(app):
    now = int(time.time())
    with app.app_context():
        with write_transaction() as session:
            for left in (60, -60):
                session.add(Revocation(jti=str(left), expires_at=now + left))
        sweep_expired()
        assert [revocation.jti for revocation in db.session.query(Revocation)] == ["60"]


def test_a_revocation_is_kept_for_as_long_as_the_youngest_token_that_it_is_for(client, auth, ann, app):
    headers = auth.headers(ann)
    client.delete("/api/tokens?all=1", headers=headers)
    with app.app_context():
        assert db.session.query(Revocation).one().expires_at >= time.time() + 3600 - 5
