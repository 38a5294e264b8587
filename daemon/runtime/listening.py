"""Sockets on which servers of ours listen, opened before anything starts that would have to be stopped."""

import socket

from extractors.errors import LearndError


class PortTaken(LearndError):
    """Another process listens on the address."""


def open_socket(host: str, port: int, key: str) -> socket.socket:
    """Listen at `host` and `port`. Raises PortTaken, which names the settings' `key` to change."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as problem:
        raise PortTaken(
            f"cannot listen at {host}:{port} ({problem.strerror}); end what does, or set another {key}"
        ) from problem
