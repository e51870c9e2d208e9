"""Pickles of CIFAR-10, read without running anything that they hold."""

from __future__ import annotations

import contextlib
import os
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evocompress.data.cifar10 import read_python_batch
from evocompress.data.pickles import load_plain
from evocompress.errors import DataError


class Calls:
    """Pickled as a call of `function`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("dtype", ["u1", "<i8", ">f4", "<f2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_numeric_arrays_come_back(protocol: int, dtype: str, order: Any) -> None:
    array = np.asarray(np.arange(24).reshape(2, 3, 4) % 5, dtype=dtype, order=order)
    value = {"a": array, b"b": [1, 2.5, None, (b"x", "y", array[0])], 3: True}
    back = load_plain(pickle.dumps(value, protocol))
    assert back["a"].dtype == array.dtype and np.array_equal(back["a"], array)
    assert np.array_equal(back[b"b"][3][2], array[0]) and back[b"b"][:3] == [1, 2.5, None]


def test_what_python_2_wrote() -> None:
    """As numpy 1.x under Python 2 pickled a CIFAR batch: protocol 2, str for bytes, module numpy.core.multiarray."""
    data = (
        b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85"
        b"U\x01b\x87Rq\x05(K\x01K\x02K\x03\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff"
        b"\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x06\x01\x02\x03\x04\x05\xfftbU\x06labelsq\x08]q\x09(K\x06K\x09eu."
    )
    content = load_plain(data)
    assert content[b"labels"] == [6, 9]
    assert content[b"data"].tolist() == [[1, 2, 3], [4, 5, 255]]


def test_a_pickle_that_calls_a_shell_is_refused_and_nothing_runs(tmp_path: Path) -> None:
    mark, batch = tmp_path / "executed", tmp_path / "data_batch_1"
    for attack in (
        Calls(os.system, f"touch {mark}"),
        Calls(eval, f"open({str(mark)!r}, 'w')"),
        Calls(open, str(mark), "w"),
    ):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            batch.write_bytes(pickle.dumps({b"data": attack}, protocol))
            with pytest.raises(DataError, match=r"data_batch_1.*refused"):
                read_python_batch(batch)
            assert not mark.exists()


@pytest.mark.parametrize(
    "attack",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"cbuiltins\ngetattr\n.",
        b"c__builtin__\neval\n(S'1'\ntR.",
        b"cnumpy\nload\n.",
        b"cnumpy.testing\nrundocs\n.",
        b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__class__\x93.",  # a dotted name, which protocol 4 would follow
        b"c_codecs\nencode\n}X\x08\x00\x00\x00functionNsb.",  # BUILD on a stand-in
        b"cnumpy\nndarray\n}X\x04\x00\x00\x00realNsb.",
        b"c_codecs\nencode\n(}X\x08\x00\x00\x00functionNstb.",
        b"\x80\x02\x82\x01.",  # an extension code
        b"P1\n.",  # a persistent id
    ],
)
def test_everything_else_is_refused(attack: bytes) -> None:
    with pytest.raises(pickle.UnpicklingError):
        load_plain(attack)
    assert load_plain(pickle.dumps([b"bytes"], 2)) == [b"bytes"]  # the table still works


@pytest.mark.parametrize(
    "array", [np.array([object()]), np.array(["text"]), np.array([1], "M8[s]"), np.zeros(2, [("a", "u1")])]
)
def test_arrays_of_other_things_than_numbers_are_refused(array: Any) -> None:
    with pytest.raises(pickle.UnpicklingError):
        load_plain(pickle.dumps(array))


def test_a_shape_that_its_bytes_do_not_fill_is_refused() -> None:
    data = pickle.dumps(np.zeros((2, 3), np.uint8), 2)
    for shape in (b"K\x02K\xff\x86", b"K\x02K\x02\x86", b"K\x02N\x86"):
        changed = data.replace(b"K\x02K\x03\x86", shape)
        assert changed != data
        with pytest.raises(pickle.UnpicklingError, match="array"):
            load_plain(changed)


def test_damage_of_any_kind_is_one_error() -> None:
    whole = pickle.dumps({"a": np.arange(6, dtype=np.uint8), "b": [1, (2, 3)]}, 2)
    rng = np.random.default_rng(0)
    refused = 0
    for end in range(len(whole)):
        with pytest.raises(pickle.UnpicklingError):
            load_plain(whole[:end])
    # Opcodes that announce a length are left alone: Python's own reader allocates what they ask for.
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[rng.integers(2, len(whole))] = rng.choice(np.frombuffer(b"(.}])0Ntbu\x85\x86\x88", np.uint8))
        try:
            load_plain(bytes(damaged))
        except pickle.UnpicklingError:
            refused += 1
    assert refused > 100


def test_a_container_that_holds_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(pickle.UnpicklingError, match="RecursionError"):
        load_plain(pickle.dumps(loop))


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04K\x01r\x00\x00\x00\x70.",  # a place in the memo: 2^31 pointers before it
        b"\x80\x05\x96" + (1 << 40).to_bytes(8, "little") + b"abc.",  # an array of 2^40 bytes
        b"\x80\x05\x8e" + (1 << 40).to_bytes(8, "little") + b"abc.",  # as many bytes
        b"\x80\x04cnumpy\ndtype\n(" + b"(" * 20 + b"l" * 20 + b"tR.",  # a dtype that is a list
    ],
    ids=["memo", "bytearray", "bytes", "dtype"],
)
def test_a_few_bytes_do_not_make_many(data: bytes) -> None:
    tracemalloc.start()
    try:
        with contextlib.suppress(pickle.UnpicklingError):
            assert load_plain(data) == 1  # where the memo is no array such a place is harmless
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_what_stands_in_many_places_is_made_once() -> None:
    value: Any = [0]
    for _ in range(60):
        value = [value, value]
    back = load_plain(pickle.dumps(value))
    assert back[0] is back[1]


def test_a_text_does_not_become_bytes_again_and_again() -> None:
    once = b"X" + (1000).to_bytes(4, "little") + b"a" * 1000
    call = b"c_codecs\nencode\nq\x010"
    again = b"h\x01h\x00\x85R0"
    head = b"\x80\x02" + once + b"q\x000" + call
    assert load_plain(head + again + b"K\x01.") == 1
    with pytest.raises(pickle.UnpicklingError, match="than it holds"):
        load_plain(head + 20 * again + b"K\x01.")
