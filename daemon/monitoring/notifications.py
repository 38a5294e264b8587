"""Notifies people of events, at least once and without delaying a cycle: by a webhook or a command.

Each event is a row of the store, written in the transaction of the act, so that a crash loses none. This
module delivers the rows, and tries again with growing pauses until the receiver takes them. A webhook gets

    POST <url>
    webhook-id: 4f0c…                     the same at each attempt, so that a repetition is recognised
    webhook-timestamp: 1767225600         time of sending, in seconds
    webhook-signature: v1,<base64>        HMAC-SHA256 of "<id>.<timestamp>.<body>" with the secret

    {"type": "batch.waiting", "timestamp": "2026-01-01T00:00:00Z", "data": {"target": "acme/routing", …}}

according to the Standard Webhooks specification (https://www.standardwebhooks.com), whose libraries check
it; a secret that begins with `whsec_` is base64. Any 2xx means received. A command gets the same JSON
on its standard input and the id in LEARND_NOTICE_ID; exit status 0 means received.
"""

import base64
import binascii
import hashlib
import hmac
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from threading import Event as Flag

import httpx
import structlog

from daemon.monitoring.webhooks import PostFailed, post
from daemon.runtime.command import CommandTimedOut, run_command
from daemon.runtime.version import VERSION
from daemon.settings.servers import NotifySettings
from daemon.settings.types import SettingsError
from extractors.errors import LearndError
from registry.notices import LONGEST_PAUSE, DueNotice, Notice
from registry.store.store import Store

log = structlog.get_logger()
FIRST_PAUSE = timedelta(seconds=10)
GIVE_UP = timedelta(days=7)
"""Notices older than this are not delivered any more."""
PREFIX = "whsec_"
SHOWN = 300
"""How many characters of a command's error output are kept."""


class NotDelivered(LearndError):
    """A receiver did not take a notice; there will be another try."""


@dataclass(frozen=True)
class Notifier:
    """Delivers notices to one receiver."""

    receiver: NotifySettings
    store: Store
    clock: Callable[[], datetime]
    """Aware UTC."""
    stop: Flag = field(default_factory=Flag)

    def register(self) -> None:
        """Register the receiver in the store: it gets the events from its first registration on.

        Raises SettingsError for a secret that cannot be read.
        """
        decode_secret(self.receiver.read_key())
        self.store.add_receiver(self.receiver.name)

    def deliver(self) -> int:
        """Deliver the notices that are due, and return how many of them the receiver took.

        Raises Interrupted where the daemon stops meanwhile; what was on its way is sent again.
        """
        now, delivered = self.clock(), 0
        due = self.store.find_due_notices(
            self.receiver.name, self.receiver.events, since=now - GIVE_UP, now=now
        )
        for each in due:
            if self.stop.is_set() or not self._deliver_one(each):
                # The others would fail as well now; this one waits, and the next call begins with them.
                break
            delivered += 1
        return delivered

    def _deliver_one(self, due: DueNotice) -> bool:
        """Return whether the receiver took the notice, and record the attempt."""
        notice, name = due.notice, self.receiver.name
        try:
            self._send(notice)
        except NotDelivered as problem:
            next_try = self.clock() + compute_pause(due.attempts)
            self.store.record_delivery(notice.id, name, next_try_at=next_try, problem=str(problem))
            last = next_try >= notice.at + GIVE_UP
            log.warning(
                "notice not delivered",
                receiver=name,
                notice=notice.event,
                target=notice.target,
                problem=str(problem),
                next_try=None if last else next_try.isoformat(),
            )
            return False
        self.store.record_delivery(notice.id, name, delivered_at=self.clock())
        log.info("notice delivered", receiver=name, notice=notice.event, target=notice.target)
        return True

    def _send(self, notice: Notice) -> None:
        """Send the notice. Raises NotDelivered, and Interrupted where the daemon stops meanwhile."""
        body, url = build_payload(notice), self.receiver.url
        try:
            if url is not None:
                self._post(url, notice, body)
            else:
                self._run(notice, body)
        except (NotDelivered, PostFailed, CommandTimedOut, OSError) as problem:
            where = _find_host(url) if url is not None else self.receiver.command[0]
            raise NotDelivered(f"{where}: {problem}") from problem

    def _post(self, url: str, notice: Notice, body: bytes) -> None:
        sent_at = int(self.clock().timestamp())
        headers = {
            "content-type": "application/json",
            "user-agent": f"learnd/{VERSION}",
            "webhook-id": notice.uid,
            "webhook-timestamp": str(sent_at),
        }
        key = decode_secret(self.receiver.read_key())
        if key is not None:
            headers["webhook-signature"] = sign(key, notice.uid, sent_at, body)
        status = post(url, body, headers, seconds=self.receiver.timeout_seconds, stop=self.stop)
        if not httpx.codes.is_success(status):
            moved = "; give the settings its new address" if httpx.codes.is_redirect(status) else ""
            raise NotDelivered(f"it answered {status}{moved}")

    def _run(self, notice: Notice, body: bytes) -> None:
        end = run_command(
            self.receiver.command,
            given=body,
            environment={**_build_environment(), "LEARND_NOTICE_ID": notice.uid},
            seconds=self.receiver.timeout_seconds,
            stop=self.stop,
        )
        if end.status != 0:
            raise NotDelivered(f"it exited with {end.status}: {end.complaint[-SHOWN:]}")


def build_payload(notice: Notice) -> bytes:
    """Return the JSON that a receiver gets: names, ids and numbers."""
    content = {
        "type": notice.event,
        "timestamp": notice.at.isoformat().replace("+00:00", "Z"),
        "data": {"target": notice.target, **notice.details},
    }
    return json.dumps(content, separators=(",", ":")).encode()


def sign(key: bytes, notice_id: str, timestamp: int, body: bytes) -> str:
    """Return the header `webhook-signature` (Standard Webhooks, symmetric signatures)."""
    signed = f"{notice_id}.{timestamp}.".encode() + body
    return f"v1,{base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()}"


def decode_secret(secret: str | None) -> bytes | None:
    """Return the key of a secret. Raises SettingsError where `whsec_` is not followed by base64."""
    if not secret:
        return None
    if not secret.startswith(PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        raise SettingsError(
            f"notify: the secret begins with {PREFIX} and goes on with what is no base64; copy all of it"
        ) from None


def compute_pause(attempts: int) -> timedelta:
    """Return how long to wait after an attempt that had `attempts` before it."""
    return min(FIRST_PAUSE * (1 << min(attempts, 20)), LONGEST_PAUSE)


def _build_environment() -> dict[str, str]:
    """Return the environment without learnd's own settings, which a command does not need."""
    return {name: value for name, value in os.environ.items() if not name.startswith("LEARND_")}


def _find_host(url: str) -> str:
    """Return the URL's host, without its path, which may be a secret."""
    return httpx.URL(url).host
