"""Attacks on running servers, over real sockets."""
