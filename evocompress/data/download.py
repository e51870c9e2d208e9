"""Fetch data sets from their public homes, checksums verified, each file put in place whole or not at all."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import http.client
import os
import tarfile
import tempfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from evocompress.data.cifar10 import BATCHES
from evocompress.data.location import data_root
from evocompress.data.mnist import IDX_FILES
from evocompress.errors import DataError
from evocompress.extensions import DATA_SETS
from evocompress.support.user_objects import one_of

__all__ = ["SOURCES", "Progress", "Source", "fetch"]

Progress = Callable[[str, int, int], None]
"""Called with a file's name, the bytes that came so far, and all that will come (0 where the server does not say)."""

_CHUNK = 1 << 16
_FAILURES = (OSError, EOFError, http.client.HTTPException, zlib.error, tarfile.TarError, ValueError)


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set's `folder` below the root, its archives with their MD5 sums, the files that come of them, mirrors.

    `files` gives each file's size in bytes; one of another size counts as missing.

    A mirror is an address that an archive's name is appended to.
    """

    folder: str
    archives: Mapping[str, str]
    files: Mapping[str, int]
    mirrors: tuple[str, ...]


SOURCES: dict[str, Source] = {
    "mnist": Source(
        "MNIST/raw",
        {
            "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
        },
        IDX_FILES,
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
            "http://yann.lecun.com/exdb/mnist/",
        ),
    ),
    "fashion_mnist": Source(
        "FashionMNIST/raw",
        {
            "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
        },
        IDX_FILES,
        (
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
        ),
    ),
    "cifar10": Source(
        "cifar-10-batches-bin",
        {"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"},
        {f"{name}.bin": 30_730_000 for name in BATCHES},
        ("https://www.cs.toronto.edu/~kriz/", "https://ossci-datasets.s3.amazonaws.com/cifar10/"),
    ),
}


def fetch(
    name: str,
    root: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    *,
    sources: Mapping[str, Source] | None = None,
    timeout: float = 30.0,
) -> Path:
    """Put data set `name` below `root` (see `data_root`) and return its folder; what is there whole is kept.

    Every mirror is tried in turn; an archive counts when its MD5 is right. `sources` replaces `SOURCES`; `timeout` is
    in seconds without an answer. Raises DataError for an unknown name, and one that says what each mirror answered and
    how to place the files by hand where none served.
    """
    base = data_root(root)
    available = SOURCES if sources is None else sources
    if name not in available and name in DATA_SETS:  # nothing to fetch; loading it shows that it is there
        DATA_SETS[name](base, 0)
        return base
    if name not in available:
        raise DataError(f"data set {name!r} is unavailable. {one_of({*available, *DATA_SETS}, name)}")
    source = available[name]
    folder = base / source.folder
    if not _unfit_files(folder, source.files):
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".fetching-") as scratch:
            for archive, md5 in source.archives.items():
                path = Path(scratch) / archive
                _download(name, source, archive, md5, path, folder, progress, timeout)
                _unpack(path, source.files)
            if unfit_files := _unfit_files(Path(scratch), source.files):
                raise DataError(f"data set {name!r}: {unfit_files} did not come out of {', '.join(source.archives)}")
            for file in source.files:
                os.replace(Path(scratch) / file, folder / file)
    except _FAILURES as failure:
        raise DataError(
            f"data set {name!r}: cannot write to {folder}: {failure}; choose another EVOCOMPRESS_DATA"
        ) from failure
    return folder


def _download(
    name: str,
    source: Source,
    archive: str,
    md5: str,
    path: Path,
    folder: Path,
    progress: Progress | None,
    timeout: float,
) -> None:
    answers: list[str] = []
    for mirror in source.mirrors:
        try:
            digest = _transfer(mirror + archive, path, progress, timeout)
        except _FAILURES as failure:
            answers.append(f"{mirror}{archive}: {failure}")
            continue
        if digest == md5:
            return
        answers.append(f"{mirror}{archive}: MD5 is {digest}, not {md5}")
    raise DataError(_advice(name, source, folder, answers))


def _transfer(address: str, path: Path, progress: Progress | None, timeout: float) -> str:
    """Store what is at `address` and return its MD5; an error where less came than was announced."""
    digest = hashlib.md5(usedforsecurity=False)
    request = urllib.request.Request(address, headers={"User-Agent": "evocompress"})
    with urllib.request.urlopen(request, timeout=timeout) as answer, path.open("wb") as file:
        total, done = int(answer.headers.get("Content-Length") or 0), 0
        while chunk := answer.read(_CHUNK):
            file.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            if progress is not None:
                progress(path.name, done, total)
    if total and done != total:
        raise EOFError(f"{done} of {total} bytes came")
    return digest.hexdigest()


def _unpack(path: Path, files: Mapping[str, int]) -> None:
    """Beside the archive: the file that a `.gz` holds, or those of a `.tar.gz` that are wanted."""
    if not path.name.endswith(".tar.gz"):
        target, left = path.with_suffix(""), files.get(path.stem, 0) + 1  # one byte more shows that it is too large
        with gzip.open(path) as packed, target.open("wb") as file:
            while left > 0 and (chunk := packed.read(min(left, _CHUNK))):
                file.write(chunk)
                left -= len(chunk)
        return
    with tarfile.open(path) as archive:
        for member in archive:
            member.name = Path(member.name).name
            if member.isfile() and member.size == files.get(member.name):
                archive.extract(member, path.parent, filter="data")


def _unfit_files(folder: Path, files: Mapping[str, int]) -> str:
    """The files that are not in `folder`, or not of their size."""
    paths = {file: folder / file for file in files}
    return ", ".join(f for f, path in paths.items() if not path.is_file() or path.stat().st_size != files[f])


def _advice(name: str, source: Source, folder: Path, answers: Sequence[str]) -> str:
    lines = [f"data set {name!r} could not be fetched:"]
    lines += [f"  {answer}" for answer in answers]
    lines += [f"By hand: get {', '.join(source.archives)} from any of", *(f"  {mirror}" for mirror in source.mirrors)]
    lines += [f"unpack, and put {', '.join(source.files)} into {folder}"]
    return "\n".join(lines)
