"""Downloads of data sets: addresses, checksums, and files that do not fit."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import socket
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from evocompress.data.download import SOURCES, Source, fetch
from evocompress.errors import DataError
from evocompress.extensions import DATA_SETS

CONTENT = b"the images " * 20_000


@dataclasses.dataclass
class Site:
    """A server on this machine: what it holds, what it cuts short, and what it was asked for."""

    address: str
    files: dict[str, bytes] = dataclasses.field(default_factory=dict)
    cut: set[str] = dataclasses.field(default_factory=set)
    asked: list[str] = dataclasses.field(default_factory=list)

    def source(self, archives: dict[str, bytes], files: dict[str, int], *mirrors: str) -> dict[str, Source]:
        sums = {name: hashlib.md5(data, usedforsecurity=False).hexdigest() for name, data in archives.items()}
        return {"things": Source("Things/raw", sums, files, tuple(f"{self.address}/{mirror}/" for mirror in mirrors))}


@pytest.fixture
def site() -> Iterator[Site]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked.append(self.path)
            data = found.files.get(self.path)
            self.send_response(404 if data is None else 200)
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            self.wfile.write((data or b"")[: 100 if self.path in found.cut else None])

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the parent's name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Site(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        server.shutdown()
        thread.join()


def tar(**members: bytes | None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            if data is None:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            info.size = len(data or b"")
            archive.addfile(info, io.BytesIO(data or b""))
    return buffer.getvalue()


def left(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_a_packed_file_is_fetched_unpacked_and_kept(site: Site, tmp_path: Path) -> None:
    packed = gzip.compress(CONTENT, mtime=0)
    site.files["/a/images.gz"] = packed
    sources = site.source({"images.gz": packed}, {"images": len(CONTENT)}, "a")
    seen: list[tuple[str, int, int]] = []
    folder = fetch("things", tmp_path, lambda *args: seen.append(args), sources=sources)
    assert folder == tmp_path / "Things" / "raw"
    assert (folder / "images").read_bytes() == CONTENT
    assert left(tmp_path) == ["Things/raw/images"]
    assert seen[-1] == ("images.gz", len(packed), len(packed))
    fetch("things", tmp_path, sources=sources)
    assert site.asked == ["/a/images.gz"]
    (folder / "images").write_bytes(CONTENT[:-1])  # cut short: not whole, so it is fetched again
    fetch("things", tmp_path, sources=sources)
    assert (folder / "images").read_bytes() == CONTENT


def test_a_wrong_checksum_goes_on_to_the_next_mirror(site: Site, tmp_path: Path) -> None:
    packed = gzip.compress(CONTENT, mtime=0)
    site.files |= {"/a/images.gz": gzip.compress(b"hostile"), "/c/images.gz": packed}
    fetch("things", tmp_path, sources=site.source({"images.gz": packed}, {"images": len(CONTENT)}, "a", "b", "c"))
    assert site.asked == ["/a/images.gz", "/b/images.gz", "/c/images.gz"]
    assert (tmp_path / "Things/raw/images").read_bytes() == CONTENT


def test_when_no_mirror_serves_nothing_is_left_and_the_manual_way_is_said(site: Site, tmp_path: Path) -> None:
    packed = gzip.compress(CONTENT, mtime=0)
    site.files |= {"/a/images.gz": b"wrong", "/b/images.gz": packed}
    site.cut.add("/b/images.gz")
    with pytest.raises(DataError) as failure:
        fetch("things", tmp_path, sources=site.source({"images.gz": packed}, {"images": len(CONTENT)}, "a", "b", "c"))
    message = str(failure.value)
    assert f"/a/images.gz: MD5 is {hashlib.md5(b'wrong').hexdigest()}, not" in message
    assert "/b/images.gz: 100 of" in message and "/c/images.gz: HTTP Error 404" in message
    assert f"put images into {tmp_path / 'Things' / 'raw'}" in message
    assert left(tmp_path) == []


def test_files_are_placed_together_or_not_at_all(site: Site, tmp_path: Path) -> None:
    packed = gzip.compress(CONTENT, mtime=0)
    site.files["/a/images.gz"] = packed
    with pytest.raises(DataError, match=r"labels.gz: HTTP Error 404"):
        fetch(
            "things",
            tmp_path,
            sources=site.source({"images.gz": packed, "labels.gz": b""}, {"images": len(CONTENT), "labels": 0}, "a"),
        )
    assert left(tmp_path) == []


def test_without_a_network_there_is_one_error(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        mirrors = tuple(f"http://127.0.0.1:{unused.getsockname()[1]}/{name}/" for name in "ab")
        with pytest.raises(DataError, match=r"(?s)could not be fetched.*refused.*By hand") as failure:
            fetch("things", tmp_path, sources={"things": Source("T", {"x.gz": "0"}, {"x": 1}, mirrors)})
    assert str(failure.value).count("refused") == 2


def test_a_tar_gives_the_wanted_files_and_nothing_else(site: Site, tmp_path: Path) -> None:
    packed = tar(**{"things/one.bin": b"1", "../../two.bin": b"2", "/abs/evil.bin": b"3", "things/readme": b"4"})
    site.files["/a/things.tar.gz"] = packed
    fetch("things", tmp_path / "in", sources=site.source({"things.tar.gz": packed}, {"one.bin": 1, "two.bin": 1}, "a"))
    assert left(tmp_path) == ["in/Things/raw/one.bin", "in/Things/raw/two.bin"]


def test_a_tar_that_lacks_a_file_or_holds_a_link_is_an_error(site: Site, tmp_path: Path) -> None:
    packed = tar(**{"one.bin": b"1", "two.bin": None})
    site.files["/a/things.tar.gz"] = packed
    with pytest.raises(DataError, match=r"two\.bin did not come out of things\.tar\.gz"):
        fetch("things", tmp_path, sources=site.source({"things.tar.gz": packed}, {"one.bin": 1, "two.bin": 1}, "a"))
    assert left(tmp_path) == []


def test_a_folder_that_cannot_be_written(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match="cannot write to .*EVOCOMPRESS_DATA"):
        fetch("things", tmp_path / "file", sources=site.source({}, {"x": 1}, "a"))


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    assert fetch("digits", tmp_path) == tmp_path
    loaded: list[Path] = []
    monkeypatch.setitem(DATA_SETS._builtin, "drawn", "math:pi")
    monkeypatch.setitem(DATA_SETS._loaded, "drawn", lambda root, seed: loaded.append(root))
    assert fetch("drawn", tmp_path) == tmp_path and loaded == [tmp_path]  # nothing to download
    with pytest.raises(DataError, match="Did you mean 'mnist'"):
        fetch("minst", tmp_path)


def test_the_real_sources_are_well_formed() -> None:
    assert sorted(SOURCES) == ["cifar10", "fashion_mnist", "mnist"]
    for source in SOURCES.values():
        assert len(source.mirrors) >= 2 and all(mirror.endswith("/") for mirror in source.mirrors)
        assert all(len(md5) == 32 and int(md5, 16) for md5 in source.archives.values())
