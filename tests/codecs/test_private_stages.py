"""Stages of installed packages: their numbers and names in files, and files that need one that is not there."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hostile_files import numbers as v
from hostile_files import sealed
from small_package import installed, write_package

from evocompress.codecs import Cost, Record, Writer, codec_spec, inspect, parse_codec, read
from evocompress.codecs.bits import BitWriter
from evocompress.codecs.codec import Codec, varint
from evocompress.codecs.conformance import CHECKS
from evocompress.codecs.container import parse
from evocompress.codecs.deadzone import DeadZone
from evocompress.codecs.deflation import deflate
from evocompress.codecs.registry import PRIVATE, stage_by_number
from evocompress.codecs.template import fingerprint_of, template_of
from evocompress.errors import CodecError, FormatError

DEADZONE = 1
HALVED = '''
from __future__ import annotations
import dataclasses
from typing import ClassVar

@dataclasses.dataclass(frozen=True)
class Halved:
    """Half of the weights' size goes through the chain."""

    scale: float = 0.5
    id: ClassVar[str] = "halved"
    number: ClassVar[int] = 50
    terminal: ClassVar[bool] = False

    def encode(self, x, cost, rest):
        return rest.encode(x / 2, cost)

    def layout(self, side, shape, rest):
        return rest.layout(side, shape)

    def decode(self, planes, side, shape, rest):
        return 2 * rest.decode_from(planes, side, shape)
'''
GROUP = "evocompress.codecs"


@pytest.fixture
def halved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package with one stage."""
    write_package(tmp_path, "halves", {"halves_stage": HALVED}, {GROUP: {"halved": "halves_stage:Halved"}})
    with installed(tmp_path, monkeypatch):
        yield


def weights() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(0).laplace(0, 0.05, (8, 9)).astype(np.float32)


def file(codec: Codec, *, names: bool = True, shapes: bool = True) -> bytes:
    writer = Writer(names=names, shapes=shapes)
    for name, part in (("a", parse_codec("deadzone")), ("b", codec)):
        writer.add(Record(name, "float32", (8, 9), part, part.encode(weights().astype(np.float64), Cost(1e-6))))
    writer.tie("c", "b")
    return writer.finish()


@pytest.fixture
def stranger(halved: None) -> bytes:
    return file(parse_codec("halved+deadzone"))


def test_a_packages_stage_is_written_and_read_by_name(halved: None) -> None:
    codec = parse_codec("halved(scale=0.25) + deadzone")
    assert codec_spec(codec) == "halved(scale=0.25)+deadzone"
    for names in (True, False):
        data = file(parse_codec("halved+deadzone"), names=names)
        decoded = read(data, None if names else ["a", "b", "c"])
        assert np.abs(decoded["b"] - weights()).max() < 0.01 and decoded["b"].tobytes() == decoded["c"].tobytes()
    assert [info.codec for info in inspect(data)[0]][1] == "halved+deadzone"
    assert varint(2) + varint(50) + b"halved\0" + varint(DEADZONE) in _table(file(parse_codec("halved+deadzone")))
    bare = file(parse_codec("halved+deadzone"), names=False, shapes=False)
    assert {name: x.tobytes() for name, x in read(bare, decoded).items()} == {
        n: x.tobytes() for n, x in decoded.items()
    }


def test_a_bare_file_names_the_stage_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_package(tmp_path, "halves", {"halves_stage": HALVED}, {GROUP: {"halved": "halves_stage:Halved"}})
    with installed(tmp_path, monkeypatch):
        data = file(parse_codec("halved+deadzone"), names=False, shapes=False)
    template = dict.fromkeys("abc", ((8, 9), "float32"))
    with pytest.raises(FormatError, match="The file needs codec stage 'halved' .number 50"):
        read(data, template)
    for name in (b"no!\0", b"a" * 65, b"\0"):
        bits = BitWriter()
        bits.number(0, 4)
        bits.number(fingerprint_of(template_of(template)), 20)
        bits.golomb(0, 0)
        bits.golomb(PRIVATE[0], 2)
        for byte in name:
            bits.number(byte, 8)
        body = b"EVC\x04" + bits.finish()
        with pytest.raises(FormatError, match="no valid name"):
            read(sealed(body), template)


def _table(data: bytes) -> bytes:
    from evocompress.codecs.deflation import inflate

    return bytes(inflate(data[5:-4], 1 << 20)[0])


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_packages_stage_can_be_held_against_the_conformance_suite(halved: None, check: Callable[[str], None]) -> None:
    check("halved+deadzone")


def test_the_names_take_few_bytes(halved: None) -> None:
    plain = len(file(parse_codec("threshold+deadzone")))
    assert len(file(parse_codec("halved+deadzone"))) - plain < 12


@pytest.fixture
def homeless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A file with a stage whose package is not installed any more."""
    write_package(tmp_path, "halves", {"halves_stage": HALVED}, {GROUP: {"halved": "halves_stage:Halved"}})
    with installed(tmp_path, monkeypatch):
        return file(parse_codec("halved+deadzone"))


def test_a_file_whose_package_is_not_installed_says_so(homeless: bytes) -> None:
    for reader in (read, inspect, parse):
        with pytest.raises(FormatError) as caught:
            reader(homeless)
        message = str(caught.value)
        assert "Tensor 'b' needs codec stage 'halved' (number 50, of the range for private use)" in message
        assert "install the package that adds it" in message


def test_another_version_of_the_package(homeless: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = HALVED.replace("= 50", "= 51")
    write_package(tmp_path / "b", "newer", {"newer_stage": source}, {GROUP: {"halved": "newer_stage:Halved"}})
    with installed(tmp_path / "b", monkeypatch), pytest.raises(FormatError, match="install the version of its package"):
        read(homeless)


def test_a_package_that_cannot_be_imported(homeless: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_package(tmp_path / "b", "broken", {"broken_stage": "1 / 0"}, {GROUP: {"halved": "broken_stage:Halved"}})
    with installed(tmp_path / "b", monkeypatch):
        with pytest.raises(FormatError, match="cannot be used here: .*package broken cannot be imported.*ZeroDivision"):
            read(homeless)
        writer = Writer()  # and files without it are read all the same
        plain = parse_codec("deadzone")
        writer.add(Record("w", "float32", (8, 9), plain, plain.encode(weights().astype(np.float64), Cost(1e-6))))
        assert list(read(writer.finish())) == ["w"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("= 50", "= 47", "number 47; a package's stages have one of 48 to 63"),
        ("= 50", "= 1", "number 1; a package's"),
        ("= 50", "= 64", "number 64"),
        ('"halved"', '"other"', "has id 'other'; it must be the name of its entry point"),
        ("def layout", "def lay_out", "is no stage"),
        ("@dataclasses.dataclass(frozen=True)", "", "is no stage"),
    ],
)
def test_a_stage_that_breaks_a_rule(
    old: str, new: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert old in HALVED
    module = f"wrong_{abs(hash((old, new)))}"
    write_package(tmp_path, "wrong", {module: HALVED.replace(old, new)}, {GROUP: {"halved": f"{module}:Halved"}})
    with installed(tmp_path, monkeypatch), pytest.raises(CodecError, match=message):
        parse_codec("halved+deadzone")


def test_two_packages_may_use_one_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("halved", "other"):
        source = HALVED.replace("halved", name)
        write_package(tmp_path, name, {f"{name}_stage": source}, {GROUP: {name: f"{name}_stage:Halved"}})
    with installed(tmp_path, monkeypatch):
        data = file(parse_codec("halved+other+deadzone"))
        assert parse(data).tensors[1].codec == parse_codec("halved+other+deadzone")


@pytest.mark.parametrize(("name", "new_number"), [("lone", 1), ("lone", 50), ("halved", 50), ("deadzone", 5)])
def test_what_nobody_could_read_is_not_written(halved: None, name: str, new_number: int) -> None:
    class Lone(DeadZone):
        id: ClassVar[str] = name
        number: ClassVar[int] = new_number

    with pytest.raises(CodecError, match="no file with it could be read"):
        file(Codec((Lone(),)))


def forged(table: bytes) -> bytes:
    return sealed(b"EVC\x01" + deflate(table))


def table(chain: bytes, stages: int = 1) -> bytes:
    return v(1, 1, stages) + chain + b"w\0" + v(0, 1, 3, 0, 0)


@pytest.mark.parametrize("number", [0, 5, 46, 47, 64, 999, 1 << 16])
def test_a_number_of_no_version_is_of_a_newer_one(number: int) -> None:
    assert stage_by_number(number) is None
    with pytest.raises(FormatError, match=f"Tensor 'w' needs codec stage {number}, .* written by a newer one"):
        read(forged(table(v(number))))
    with pytest.raises(FormatError, match=f"The file needs codec stage {number}, .* newer"):
        read(forged(table(v(number) + b"\xff\0")))  # what follows may mean something else


@pytest.mark.parametrize("number", [PRIVATE[0], PRIVATE[-1]])
@pytest.mark.parametrize(
    "name", [b"", b"\0", b"a b\0", "é\0".encode(), b"a" * 65 + b"\0", b"no end", b"\x1b[31m\0", b"a\nb\0"]
)
def test_names_of_private_stages_are_checked(number: int, name: bytes) -> None:
    with pytest.raises(FormatError, match="damaged"):
        read(forged(v(1, 1, 1, number) + name))


def test_a_built_in_name_beside_a_private_number_is_no_built_in_stage() -> None:
    with pytest.raises(FormatError, match="Tensor 'w' needs codec stage 'deadzone' .number 48"):
        read(forged(table(v(48) + b"deadzone\0")))


def test_a_chain_that_no_tensor_has_is_refused_too() -> None:
    chains = v(2, 2, 1, DEADZONE, 1, 48) + b"other\0"
    with pytest.raises(FormatError, match="The file needs codec stage 'other'"):
        read(forged(chains + b"w\0x\0" + v(0, 0, 1, 3, 1, 0, 0, 0, 0, 0)))


def test_truncated_and_damaged_tables_are_refused(stranger: bytes) -> None:
    whole = _table(stranger)
    header = stranger[:5]
    for length in range(len(whole)):
        body = header + deflate(whole[:length])
        with pytest.raises(FormatError):
            read(sealed(body))
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        body = header + deflate(bytes(damaged)) + stranger[5 + len(deflate(whole)) : -4]
        try:
            read(sealed(body))
        except FormatError:
            pass


def test_thousands_of_unknown_stages_are_refused_soon() -> None:
    names = b"".join(v(8) + b"".join(v(48) + b"n%d-%d\0" % (i, j) for j in range(8)) for i in range(5000))
    with pytest.raises(FormatError, match="needs codec stage|more|longer|table"):
        read(forged(v(5000, 5000) + names))


@pytest.mark.parametrize("first_line", ["", "from __future__ import annotations"])
def test_parameters_of_every_type_with_and_without_annotations_as_text(
    first_line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = HALVED.replace("from __future__ import annotations", first_line)
    source = source.replace(
        "    scale: float = 0.5\n", "    scale: float = 0.5\n    n: int = 1\n    flag: bool = False\n    w: str = 'a'\n"
    )
    module = f"halves_{len(first_line)}"
    write_package(tmp_path, "halves", {module: source}, {GROUP: {"halved": f"{module}:Halved"}})
    with installed(tmp_path, monkeypatch):
        text = "halved(scale=1,n=3,flag=True,w=b)+deadzone"
        codec = parse_codec(text)
        assert dataclasses.astuple(codec.stages[0]) == (1, 3, True, "b")  # type: ignore[call-overload]
        assert codec_spec(codec) == text and parse_codec(codec_spec(codec)) == codec
        for wrong in ("n=0.5", "flag=3", "scale=x"):
            with pytest.raises(CodecError, match="must be of type"):
                parse_codec(f"halved({wrong})+deadzone")
