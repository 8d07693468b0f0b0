"""Users: register, look up, change, and the password check."""

import logging
import time

from flask import Blueprint, g, request
from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError, OperationalError

from common import auth, background
from common.auth import token_optional, token_required
from common.database import db, time_of_change, write_transaction
from common.paging import answer_page
from common.parameters import MAX_ID, check_key, json_body, query_ids, query_int
from common.push import push_model
from common.refusals import Forbidden, KeyReused, NotFound, NotSignedIn, Overloaded, Taken

from .. import attempts, presence
from ..models.sign_out import deliver_sign_outs, sign_out_everywhere
from ..models.user import User, check_new_password, fill_keys, find_by_nickname
from ..nicknames import check_nickname, nickname_key
from ..passwords import hash_password, matches, needs_rehash

log = logging.getLogger(__name__)

users = Blueprint("users", __name__, url_prefix="/api/users")


@users.post("")
def create():
    """Register a user; with an Idempotency-Key header, a repeat answers the first one."""
    body = json_body()
    key = check_key(request.headers.get("Idempotency-Key"))
    nickname, password = check_nickname(body.get("nickname")), check_new_password(body.get("password"))
    if user := find_repeat(nickname, password, key):
        return user.to_dict()
    user = make_user(nickname, password, key)
    try:
        save(user)
    except Taken:
        if user := find_repeat(nickname, password, key):  # the same request at the same time was faster
            return user.to_dict()
        raise
    push_model(user)
    return user.to_dict(), 201, {"Location": f"/api/users/{user.id}"}


@users.get("")
@token_optional
def index():
    """List users by time of change, page by page; the conditions of the query narrow the list."""
    query = select(User)
    if (online := query_int("online", 0, 1)) is not None:
        query = query.where(User.online == bool(online))
    if (ids := query_ids("ids", at_most=500)) is not None:
        query = query.where(User.id.in_(ids))
    return answer_page("users", query, User.updated_at, User.nickname)


@users.get("/<int:user_id>")
@token_optional
def show(user_id):
    """Show one user."""
    return find(user_id).to_dict()


@users.put("/<int:user_id>")
@token_required
def change(user_id):
    """Change one's nickname or password; a new password signs the user out everywhere."""
    find(user_id)
    if user_id != g.user_id:
        raise Forbidden("You can change only yourself.")
    body = json_body()
    changes = {}
    if "nickname" in body:
        changes["nickname"] = check_nickname(body["nickname"])
        changes["nickname_key"] = nickname_key(changes["nickname"])
    if "password" in body:
        changes["password_hash"] = hash_password(check_new_password(body["password"]))
    if changes:
        push_model(save_changes(user_id, changes))
    return "", 204


@users.get("/me")
def check():
    """Show the user whose nickname and password the request carries: this is the password check."""
    return check_password(*auth.basic_credentials()).to_dict()


@users.put("/me")
@token_required
def come():
    """Be online, for a minute or as long as a page is open."""
    presence.ping(g.user_id, "http")
    return "", 204


@users.delete("/me")
@token_required
def go():
    """Be offline at once, until the next ping."""
    presence.leave(g.user_id)
    return "", 204


def find(user_id):
    """Return a user; raises NotFound."""
    user = db.session.get(User, user_id) if user_id <= MAX_ID else None
    if user is None:
        raise NotFound("There is no such user.")
    return user


def make_user(nickname, password, key):
    """Return a new user, not stored yet; raises Overloaded."""
    now = int(time.time())
    return User(
        created_at=now,
        last_seen_at=now,
        nickname=nickname,
        nickname_key=nickname_key(nickname),
        registration_key=key,
        password_hash=hash_password(password),
    )


def find_repeat(nickname, password, key):
    """Return the user with this nickname who registered with this idempotency key, or None; raises KeyReused.

    So a client that got no answer can send the same registration again, although the nickname is taken by then.
    """
    if key is None:
        return None
    user = find_by_nickname(nickname)
    db.session.commit()  # gives the connection back: others can use it while we hash
    if user is None or user.registration_key != key:
        return None
    if not matches(user.password_hash, password):
        raise KeyReused("This idempotency key was used with another password. Use a new key for each registration.")
    return user


def check_password(nickname, password):
    """Return the user with this nickname and password.

    Raises NotSignedIn, without telling which one was wrong, TooMany after too many wrong ones, and Overloaded.
    """
    with attempts.counted(nickname_key(nickname), request.remote_addr):
        user = find_by_nickname(nickname)
        db.session.commit()  # gives the connection back: others can use it while we hash
        if not matches(user and user.password_hash, password):
            raise NotSignedIn("Nickname or password is wrong.")
    if needs_rehash(user.password_hash):
        rehash(user.id, user.password_hash, password)
    return user


def rehash(user_id, old_hash, password):
    """Store the hash of a password with today's parameters. If that fails, the next sign-in tries again."""
    try:
        new_hash = hash_password(password)
        with write_transaction(lock_wait=0.1) as session:
            # Changes nothing if the user has chosen another password in the meantime.
            is_unchanged = (User.id == user_id) & (User.password_hash == old_hash)
            session.execute(update(User).where(is_unchanged).values(password_hash=new_hash))
    except (OperationalError, Overloaded) as error:
        log.warning("The password of user %d keeps its old hash: %s", user_id, error)


def save(user):
    """Insert a user; raises Taken. The unique index decides, so of two racing registrations one wins."""
    fill_keys()
    try:
        with write_transaction() as session:
            user.updated_at = time_of_change(session, User)
            session.add(user)
    except IntegrityError as error:
        raise Taken("This nickname is taken, or looks like one that is.") from error


def save_changes(user_id, changes):
    """Change a user's row and return it; raises Taken."""
    fill_keys()
    try:
        with write_transaction() as session:
            user = session.get(User, user_id)
            for name, value in {**changes, "updated_at": time_of_change(session, User)}.items():
                setattr(user, name, value)
            if "password_hash" in changes:
                # Users needs tokens here, as tokens needs users to check a password: a cycle between the two.
                sign_out_everywhere(session, g.claims)
    except IntegrityError as error:
        raise Taken("This nickname is taken, or looks like one that is.") from error
    if "password_hash" in changes:
        background.soon(deliver_sign_outs)  # may wait for tokens, and for the database: the password is changed anyway
    return user
