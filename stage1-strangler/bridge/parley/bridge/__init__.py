"""The bridge: a build of the monolith that speaks both as the version before it and as the one after it.

    build A, stage 0          answers all paths; looks for revoked tokens in its own table
    build B, this one         answers all paths; looks there, and in the list of the tokens service
    build C, stage 1's        answers what is left to it; looks in that list only

A and B run side by side while B is rolled out, B and the services until all paths have moved, B and C at the end. So B
has to read what either side writes, and to write what either side reads. Once C runs, this folder is of no use.
"""

import os

from sqlalchemy import event, insert

from common import auth, background, keys, revocations

from .. import create_app as create_monolith
from ..models.sign_out import SignOut
from ..models.user import mark_seen
from ..ui import ui
from .models.revocation import Revocation, is_revoked, sweep_expired
from .tokens import tokens

SWEEP_EXPIRED_EVERY = 60  # seconds


def create_app(environ=os.environ):
    """Wire the monolith together, with the paths that are about to leave it, and with both answers to "revoked?"."""
    app = create_monolith(environ)
    app.config.from_mapping(keys.private_key(environ))  # this build still signs; stage 1's only checks
    auth.init_app(app, is_revoked=is_revoked_here_or_there, mark_seen=mark_seen)
    background.every(app, SWEEP_EXPIRED_EVERY, sweep_expired)
    for blueprint in (tokens, ui):
        app.register_blueprint(blueprint)
    return app


def serve():
    """Return the application, at work: the gunicorn entry point, parley.bridge:serve()."""
    app = create_app()
    background.start(app)
    return app


def is_revoked_here_or_there(claims):
    """Return whether a token was revoked here, by A or B, or there, by the tokens service."""
    return is_revoked(claims) or revocations.is_revoked(claims)


@event.listens_for(SignOut, "after_insert")
def sign_out_here_too(_mapper, connection, sign_out):
    """Revoke here, in the same transaction, what the tokens service is going to be told: A looks nowhere else."""
    until = sign_out.issued_until
    values = {"user_id": sign_out.user_id, "issued_until": until, "expires_at": int(until) + auth.LIFETIME + 1}
    connection.execute(insert(Revocation).values(values))
