"""The adapters that a replica must load and unload, and their paths there."""

from pathlib import Path

import pytest

from registry.serving.reconciler import find_difference
from registry.serving.replica import Replica, ReplicaRefused

V1, V2 = "acme.routing.v1", "acme.routing.v2"


def test_what_is_missing_is_loaded_and_what_is_not_wanted_unloaded() -> None:
    todo = find_difference({V2: "/a/v2"}, {V1: "/a/v1"}, ["acme/routing"])
    assert (todo.loads, todo.unloads) == ((V2,), (V1,))


def test_a_replica_that_serves_what_is_wanted_is_left_alone() -> None:
    todo = find_difference({V1: "/a/v1"}, {V1: "/a/v1"}, ["acme/routing"])
    assert (todo.loads, todo.unloads) == ((), ())


@pytest.mark.parametrize(
    "foreign",
    [
        "base",
        "acme.billing.v1",
        "acme.routing.vNext",
        "acme.routing.v1.copy",
        "globex.routing.v1",
        "acmeXrouting.v1",
    ],
)
def test_other_peoples_adapters_are_never_unloaded(foreign: str) -> None:
    assert find_difference({}, {foreign: "/a/v1"}, ["acme/routing"]).unloads == ()


def test_a_version_served_from_another_folder_is_loaded_anew() -> None:
    todo = find_difference({V1: "/new/v1"}, {V1: "/old/v1"}, ["acme/routing"])
    assert (todo.loads, todo.unloads) == ((V1,), (V1,))


def test_folders_are_named_as_the_replica_sees_them() -> None:
    with Replica("gpu", "http://gpu:8000/v1", path_map=("/data/adapters", "/mnt/loras")) as replica:
        assert replica.url == "http://gpu:8000"
        assert replica.to_remote_path(Path("/data/adapters/acme/v1")) == "/mnt/loras/acme/v1"
        with pytest.raises(ReplicaRefused, match="outside"):
            replica.to_remote_path(Path("/data/other/v1"))
