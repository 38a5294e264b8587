"""An adapter's files on this machine: checked against their digests, and either complete or absent."""

import hashlib
import re
import shutil
import tempfile
from pathlib import Path

import httpx

from learnd.active_version import ActiveVersion
from learnd.errors import BrokenAdapter, DaemonUnreachable, NoActiveAdapter, RequestRefused

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")


def fetch_files(client: httpx.Client, url: str, resolved: ActiveVersion, folder: Path) -> Path:
    """Download the files that `resolved` lists, and return their folder, which is named by their content.

    Nothing is downloaded if the files are there already and undamaged. The folder appears by a rename, so
    that another process never sees a part of it. Raises NoActiveAdapter, BrokenAdapter, DaemonUnreachable,
    RequestRefused.
    """
    if resolved.version is None:
        raise NoActiveAdapter(f"{resolved.target} is served by its base model: there is no adapter to fetch")
    for name in resolved.files:
        if not _PLAIN_NAME.fullmatch(name):
            raise BrokenAdapter(
                f"the manifest of {resolved.version} lists {name!r}, which is no plain file name"
            )
    final = folder / resolved.content_id
    if _is_whole(final, resolved):
        return final
    folder.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=folder, prefix=".partial-"))
    try:
        for name, digest in resolved.files.items():
            _download(client, f"{url}/v1/adapters/{resolved.version}/files/{name}", partial / name, digest)
        _put_in_place(partial, final, resolved)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return final


def _is_whole(folder: Path, resolved: ActiveVersion) -> bool:
    return all(
        (folder / name).is_file() and _compute_digest(folder / name) == digest
        for name, digest in resolved.files.items()
    )


def _put_in_place(partial: Path, final: Path, resolved: ActiveVersion) -> None:
    if final.exists():
        if _is_whole(final, resolved):
            return  # Another process was faster.
        final.rename(partial / ".broken")
    try:
        partial.rename(final)
    except OSError:
        if not _is_whole(final, resolved):
            raise
    shutil.rmtree(final / ".broken", ignore_errors=True)


def _download(client: httpx.Client, url: str, path: Path, digest: str) -> None:
    sha256 = hashlib.sha256()
    try:
        with client.stream("GET", url) as answer, path.open("wb") as file:
            if answer.status_code in {401, 403, 404}:
                raise RequestRefused(
                    f"{url}: HTTP {answer.status_code}; the version may have been replaced meanwhile"
                )
            if answer.status_code == 409:
                raise BrokenAdapter(
                    f"{url}: the daemon's file is not what was trained (SHA-256 differs, or a link)"
                )
            answer.raise_for_status()
            for piece in answer.iter_bytes():
                sha256.update(piece)
                file.write(piece)
    except (httpx.TransportError, httpx.HTTPStatusError) as failed:
        raise DaemonUnreachable(f"{url} could not be downloaded: {failed}") from None
    if sha256.hexdigest() != digest:
        raise BrokenAdapter(f"{url} is not the file that the manifest describes (SHA-256 differs); try again")


def _compute_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
