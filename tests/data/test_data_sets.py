"""Data sets: their files, their splits, and what is said where one is missing."""

from __future__ import annotations

import gzip
import pickle
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from evocompress.data import DATA_SETS, Splits, data_root, load
from evocompress.data.cifar10 import BATCHES, read_binary_batch, read_python_batch
from evocompress.data.idx import read_idx
from evocompress.data.splits import hold_out
from evocompress.errors import DataError

Bytes = npt.NDArray[np.uint8]


def idx(array: Bytes) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def arrays(n: int, *shape: int) -> tuple[Bytes, Bytes]:
    """Images whose first two bytes are their number, and labels in turn."""
    images = np.random.default_rng(n).integers(0, 256, (n, *shape), np.uint8)
    images.reshape(n, -1)[:, 0], images.reshape(n, -1)[:, 1] = np.arange(n) % 256, np.arange(n) // 256
    return images, (np.arange(n) % 10).astype(np.uint8)


def write_mnist(root: Path, folder: str = "MNIST", pack: Callable[[bytes], bytes] = bytes, suffix: str = "") -> None:
    raw = root / folder / "raw"
    raw.mkdir(parents=True)
    for part, n in (("train", 200), ("t10k", 50)):
        images, labels = arrays(n, 28, 28)
        (raw / f"{part}-images-idx3-ubyte{suffix}").write_bytes(pack(idx(images)))
        (raw / f"{part}-labels-idx1-ubyte{suffix}").write_bytes(pack(idx(labels)))


def write_cifar(root: Path, layout: str) -> None:
    folder = root / f"cifar-10-batches-{layout}"
    folder.mkdir(parents=True)
    images, labels = arrays(120, 3, 32, 32)
    for i, name in enumerate(BATCHES):
        x, y = images[20 * i : 20 * (i + 1)].reshape(20, 3072), labels[20 * i : 20 * (i + 1)]
        if layout == "bin":
            (folder / f"{name}.bin").write_bytes(np.concatenate([y[:, None], x], 1).tobytes())
        else:
            content = {b"data": x, b"labels": y.tolist(), b"batch_label": name.encode(), b"filenames": [b"a.png"]}
            (folder / name).write_bytes(pickle.dumps(content, protocol=2))


def identities(splits: Splits, part: str) -> set[bytes]:
    return {image.numpy().tobytes() for image in getattr(splits, part).inputs}


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize("packed", [False, True])
def test_idx_folders_are_read(name: str, packed: bool, tmp_path: Path) -> None:
    folder = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}[name]
    write_mnist(tmp_path, folder, gzip.compress if packed else bytes, ".gz" if packed else "")
    splits = load(name, root=tmp_path, options={"validation": 30})
    assert [len(getattr(splits, part)) for part in ("train", "validation", "audit")] == [170, 30, 50]
    assert splits.train.inputs.shape == (170, 1, 28, 28) and splits.train.inputs.dtype == torch.uint8
    images, labels = arrays(50, 28, 28)
    assert np.array_equal(splits.audit.inputs[:, 0].numpy(), images)
    assert splits.audit.labels.tolist() == labels.tolist()


def test_images_keep_their_labels_and_splits_do_not_overlap(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    splits = load("mnist", root=tmp_path, seed=3, options={"validation": 40})
    for part in (splits.train, splits.validation):
        numbers = part.inputs[:, 0, 0, 0].long() + 256 * part.inputs[:, 0, 0, 1].long()
        assert torch.equal(numbers % 10, part.labels)
    assert not identities(splits, "train") & identities(splits, "validation")
    assert torch.bincount(splits.validation.labels).tolist() == [4] * 10


def test_the_seed_decides_the_splits_and_the_hash_records_them(tmp_path: Path) -> None:
    write_mnist(tmp_path)

    def splits(seed: int, **options: Any) -> Splits:
        return load("mnist", root=tmp_path, seed=seed, options={"validation": 40, **options})

    first = splits(1)
    assert first.sha256 == splits(1).sha256 and len(first.sha256) == 64
    assert len({first.sha256, splits(2).sha256, splits(1, validation=41).sha256, splits(1, train=90).sha256}) == 4
    assert first.describe() == {
        "name": "mnist",
        "sha256": first.sha256,
        "classes": 10,
        "train": 160,
        "validation": 40,
        "audit": 50,
    }
    raw = tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    raw.write_bytes(raw.read_bytes()[:-1] + b"\x01")
    assert splits(1).sha256 != first.sha256


def test_train_keeps_a_stratified_part(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    splits = load("mnist", root=tmp_path, options={"validation": 40, "train": 20})
    assert torch.bincount(splits.train.labels).tolist() == [2] * 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": 200}, "validation 200 must be from 1 to 199"),
        ({"validation": 100, "train": 101}, "train 101 must be from 1 to 100"),
        ({"validation": 40, "train": 0}, "train 0 must be"),
        ({"valdation": 40}, "unknown option 'valdation'. Did you mean 'validation'"),
        ({"validation": 40, "augmentation": "flop"}, "augmentation 'flop'"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_mnist(tmp_path)
    with pytest.raises(DataError, match=message):
        load("mnist", root=tmp_path, options=options)


def test_both_layouts_of_cifar10_give_the_same(tmp_path: Path) -> None:
    write_cifar(tmp_path / "a", "bin")
    write_cifar(tmp_path / "b", "py")
    binary, python = (load("cifar10", root=tmp_path / x, options={"validation": 10}) for x in "ab")
    assert binary.sha256 == python.sha256
    assert binary.train.inputs.shape == (90, 3, 32, 32) and len(binary.audit) == 20
    assert binary.train.augmentation == "crop-flip" and binary.validation.augmentation == "none"
    x = binary.audit.batch(slice(0, 1))[0][0, 2, 5, 7]
    assert float(x) == pytest.approx((int(binary.audit.inputs[0, 2, 5, 7]) / 255 - 0.406) / 0.225, abs=1e-5)


@pytest.mark.parametrize("layout", ["bin", "py"])
def test_a_damaged_cifar10_batch_is_named(layout: str, tmp_path: Path) -> None:
    write_cifar(tmp_path, layout)
    path = tmp_path / f"cifar-10-batches-{layout}" / ("data_batch_3" + (".bin" if layout == "bin" else ""))
    whole = path.read_bytes()
    for data in (whole[:-1], whole[:3072], b"", b"\xff" * 30 + whole[30:]):
        path.write_bytes(data)
        with pytest.raises(DataError, match="data_batch_3"):
            load("cifar10", root=tmp_path, options={"validation": 10})
    path.unlink()
    with pytest.raises(DataError, match="data_batch_3.*fetch..cifar10"):
        load("cifar10", root=tmp_path, options={"validation": 10})


@pytest.mark.parametrize("content", [[1], {b"data": 3}, {b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, 10]}])
def test_a_pickle_of_something_else(content: Any, tmp_path: Path) -> None:
    write_cifar(tmp_path, "py")
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(pickle.dumps(content))
    with pytest.raises(DataError, match=r"data_batch_1.*fetch it again"):
        load("cifar10", root=tmp_path, options={"validation": 10})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-1], "needs 156816"),
        (lambda data: data + b"\0", "needs 156816"),
        (lambda data: data[:9], "its header alone needs 16"),
        (lambda data: b"\0\0\x0d\3" + data[4:], "starts with 00000d03"),
        (lambda data: b"", "starts with"),
        (lambda data: gzip.compress(data)[:-20], "cannot be read"),
        (lambda data: b"\0\0\x08\3" + b"\xff" * 12 + data[16:], "needs"),  # a shape of 2^96 allocates nothing
        (lambda data: b"\0\0\x08\1" + struct.pack(">I", len(data)) + data, "must be \\(n, 28, 28\\)"),
    ],
)
def test_a_damaged_idx_file_is_named(damage: Callable[[bytes], bytes], message: str, tmp_path: Path) -> None:
    write_mnist(tmp_path)
    path = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=f"train-images-idx3-ubyte.*{message}"):
        load("mnist", root=tmp_path, options={"validation": 30})


def test_idx_of_every_number_of_dimensions(tmp_path: Path) -> None:
    for shape in ((3,), (2, 3), (2, 3, 4), (2, 1, 3, 2)):
        array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
        (tmp_path / "x").write_bytes(idx(array))
        assert np.array_equal(read_idx(tmp_path / "x"), array)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
def test_a_missing_data_set_says_how_to_get_it(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"fetch..{name}.*EVOCOMPRESS_DATA"):
        load(name, root=tmp_path)


def test_an_unknown_data_set_names_the_nearest() -> None:
    with pytest.raises(DataError, match="Did you mean 'fashion_mnist'"):
        load("fashion-mnist")
    assert list(DATA_SETS) == sorted(DATA_SETS)


def test_the_root_is_the_argument_or_the_variable_or_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVOCOMPRESS_DATA", str(tmp_path / "b"))
    assert data_root(tmp_path / "a") == tmp_path / "a"
    assert data_root() == tmp_path / "b"
    monkeypatch.delenv("EVOCOMPRESS_DATA")
    assert data_root().parts[-2:] == ("evocompress", "data")
    assert data_root("~/x") == Path.home() / "x"


def test_digits_are_split_60_20_20_and_stratified(digits: Splits) -> None:
    sizes = [len(getattr(digits, part)) for part in ("train", "validation", "audit")]
    assert sizes == [1079, 359, 359]
    together = torch.bincount(torch.cat([getattr(digits, p).labels for p in ("train", "validation", "audit")]))
    for part in ("validation", "audit"):
        counts = torch.bincount(getattr(digits, part).labels, minlength=10)
        assert (counts - together * 359 / 1797).abs().max() <= 2
    assert load("digits", seed=0).sha256 == digits.sha256 != load("digits", seed=1).sha256
    x = digits.train.batch(slice(None))[0]
    assert abs(float(x.mean())) < 1e-3 and float(x.std()) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(("name", "mean"), [("mnist", 0.1307), ("fashion_mnist", 0.2860)])
def test_the_real_idx_data_sets(name: str, mean: float, request: pytest.FixtureRequest) -> None:
    splits: Splits = request.getfixturevalue(name)
    assert [len(getattr(splits, part)) for part in ("train", "validation", "audit")] == [55_000, 5_000, 10_000]
    assert torch.bincount(splits.audit.labels).float().mean() == 1000
    assert float(splits.train.inputs.float().mean()) / 255 == pytest.approx(mean, abs=1e-3)


def test_the_real_cifar10(cifar10: Splits) -> None:
    assert [len(getattr(cifar10, part)) for part in ("train", "validation", "audit")] == [45_000, 5_000, 10_000]
    assert torch.bincount(cifar10.validation.labels).tolist() == [500] * 10
    assert torch.bincount(cifar10.audit.labels).tolist() == [1000] * 10


@pytest.mark.parametrize(("n", "count"), [(10, 1), (10, 9), (1797, 359), (97, 13), (60, 30)])
def test_hold_out_is_exact_and_stratified(n: int, count: int) -> None:
    rng = np.random.default_rng(n)
    labels = rng.integers(0, 4, n)
    kept, held = hold_out(labels, count, rng)
    assert len(held) == count and np.array_equal(np.sort(np.concatenate([kept, held])), np.arange(n))
    shares = np.bincount(labels, minlength=4) * count / n
    assert np.abs(np.bincount(labels[held], minlength=4) - shares).max() <= 1


@pytest.mark.parametrize("count", [0, 5, 6, -1])
def test_hold_out_refuses_what_leaves_a_side_empty(count: int) -> None:
    with pytest.raises(DataError, match=f"{count} of 5"):
        hold_out(np.zeros(5, np.uint8), count, np.random.default_rng(0))


@pytest.mark.parametrize("zeros", [1 << 26, 1000])
def test_no_more_than_an_idx_file_declares_is_inflated(zeros: int, tmp_path: Path) -> None:
    path = tmp_path / "bomb-idx1-ubyte"
    path.write_bytes(gzip.compress(b"\0\0\x08\1" + struct.pack(">I", 10) + bytes(zeros)))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="bomb-idx1-ubyte: is more than 18 bytes long"):
            read_idx(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("shape", "message"), [((1 << 30,), "needs"), ((1 << 31,), "at most 1073741824 are read")])
def test_a_shape_beyond_what_the_file_can_hold_is_not_read(
    shape: tuple[int, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large-idx1-ubyte"
    path.write_bytes(gzip.compress(b"\0\0\x08\1" + struct.pack(">I", *shape) + bytes(1000)))
    if "most" in message:
        monkeypatch.setattr("evocompress.data.idx._DENSEST", 1 << 40)  # as of a file of 2 MB
    with pytest.raises(DataError, match=message):
        read_idx(path)


def test_a_batch_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    for read in (read_binary_batch, read_python_batch):
        path = tmp_path / "data_batch_1"
        with path.open("wb") as file:
            file.truncate((1 << 30) + 1)  # a hole: nothing is written
        with pytest.raises(DataError, match="a batch of at most 1073741824 is read"):
            read(path)
