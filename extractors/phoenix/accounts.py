"""API keys for programs: each belongs to an account of its own, a member, so that no program is an admin.

A member may write traces and annotations, and read. A viewer may not write traces; an admin also manages
people and keys. Phoenix gives a key only to somebody who signs in, so the account gets a new random password
each time, which is used once and kept nowhere.
"""

import secrets
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from extractors.phoenix.http import PhoenixAnswer, PhoenixHttp, PhoenixRefused

ROLE = "MEMBER"
"""The least role of Phoenix that may write traces."""
MAIL_DOMAIN = "learnd.invalid"
"""Phoenix wants an address of each account. RFC 2606 keeps this domain from existing."""
ACCESS_COOKIE = "phoenix-access-token"
TIMEOUT = 30.0
EXISTS = 409


def create_member_key(url: str, admin_secret: str, name: str, patience: float) -> str:
    """Return a new API key of the member `name`, and revoke the keys that this account had.

    `admin_secret` is Phoenix's PHOENIX_ADMIN_SECRET; `patience` bounds the attempts of one request, in
    seconds. Raises PhoenixError.
    """
    mail, password = f"{name}@{MAIL_DOMAIN}", f"a1{secrets.token_hex(24)}"
    with _open(url, admin_secret, patience) as admin:
        _set_password(admin, name, mail, password)
    with _open(url, None, patience) as stranger:
        answer = stranger.send("POST", "/auth/login", json={"email": mail, "password": password})
        session = answer.cookies.get(ACCESS_COOKIE)
    with _open(url, session, patience) as member:
        before = [key["id"] for key in member.json("GET", "/v1/user/api_keys")["data"]]
        made = member.post_once("/v1/user/api_keys", json={"data": {"name": name}})
        for key_id in before:
            member.send("DELETE", f"/v1/user/api_keys/{key_id}")
    return str(made["data"]["key"])


def is_accepted(url: str, key: str, patience: float) -> bool:
    """Return True if Phoenix knows this key. Raises PhoenixError where that cannot be told."""
    with _open(url, key, patience) as http:
        try:
            http.json("GET", "/v1/projects", params={"limit": "1"})
        except PhoenixRefused:
            return False
    return True


def _set_password(admin: PhoenixHttp, name: str, mail: str, password: str) -> None:
    """Give the member `name` a password; the account is made where it is new."""
    user = {"email": mail, "username": name, "role": ROLE, "auth_method": "LOCAL", "password": password}
    try:
        admin.json("POST", "/v1/users", json={"user": user, "send_welcome_email": False})
    except PhoenixAnswer as answer:
        if answer.status != EXISTS:
            raise
        user_id = _find_user(admin, mail)
        change = {"userId": user_id, "newPassword": password, "newRole": ROLE}
        admin.graphql(
            "mutation ($input: PatchUserInput!) { patchUser(input: $input) { user { id } } }",
            {"input": change},
        )


def _find_user(admin: PhoenixHttp, mail: str) -> str:
    """Return the id of the account. Raises PhoenixAnswer where another account has its name."""
    pages: Iterator[list[dict[str, Any]]] = admin.read_pages("/v1/users", [("limit", "100")])
    for user in (user for page in pages for user in page):
        if user["email"] == mail:
            return str(user["id"])
    raise PhoenixAnswer(f"Phoenix has an account of this name that is not {mail}; take another name", EXISTS)


@contextmanager
def _open(url: str, key: str | None, patience: float) -> Iterator[PhoenixHttp]:
    with closing(PhoenixHttp(url, key, TIMEOUT, patience)) as http:
        yield http
