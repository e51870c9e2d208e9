"""Stored files must decode for ever: the same symbols on every machine, and the same weights but for float rounding.

`python tests/codecs/test_golden.py --write-golden` writes the files that tests/golden/ lacks; it changes none.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from evocompress import Recipe, Rule, pack
from evocompress.checkpoint.presets import PRESETS, preset
from evocompress.codecs import CODECS, Sensitivity, inspect, read
from evocompress.codecs.coders import CoderName
from evocompress.codecs.container import parse
from evocompress.codecs.dtypes import DTYPES, dtype_named, name_of
from evocompress.codecs.planes import kernel_places

GOLDEN = Path(__file__).parents[1] / "golden"
MANIFEST = GOLDEN / "manifest.json"
#: Codecs whose decoder only multiplies and looks up, so that every bit of a weight is the same on every machine.
EXACT = ("deadzone", "trellis", "codebook", "lossless", "symmetry", "symmetry-trellis")

#: How tensors are called that are compared by their bytes.
BITS = "lossless:bits-"

Array = npt.NDArray[Any]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


#: Bare files, which have no names and shapes, each with another of the same tensors.
TEMPLATES = {"bare": "rans", "tied-bare": "tied", "cropped": "zero-ended"}


def template(name: str) -> dict[str, Array] | None:
    """What a golden file needs to be read: nothing, or the tensors whose names and shapes it has."""
    return read((GOLDEN / f"{TEMPLATES[name]}.evc").read_bytes()) if name in TEMPLATES else None


def symbols_digest(data: bytes, names: dict[str, Array] | None) -> str:
    """Over every symbol of a file, in the order of its stream."""
    contents, total = parse(data, names), hashlib.sha256()
    decoder = contents.coder.decoder(contents.stream)
    for entry in contents.tensors:
        for layout in entry.planes:
            plane = decoder.plane((layout.rows, layout.columns), layout.kind, kernel_places(entry.shape))
            total.update(plane.astype("<i4").tobytes())
    return total.hexdigest()


def described(name: str, x: Array) -> dict[str, Any]:
    """A tensor: exactly where its codec allows, and by a few projections where it computes with floats."""
    flat = (
        (np.ascontiguousarray(x).reshape(-1).view(np.uint8) if name.startswith(BITS) else x).astype(np.float64).ravel()
    )
    waves = [np.cos(np.arange(flat.size) * k) for k in (0.0, 0.7, 2.3)]
    summary = {
        "dtype": name_of(x.dtype),
        "shape": list(x.shape),
        "norm": float(np.linalg.norm(flat)),
        "projections": [float(wave @ flat) for wave in waves],
    }
    codec = name.split(":")[0]
    return summary | ({"sha256": digest(np.ascontiguousarray(x).tobytes())} if codec in EXACT else {})


def entry(data: bytes, names: dict[str, Array] | None) -> dict[str, Any]:
    return {
        "sha256": digest(data),
        "version": data[3],
        "symbols_sha256": symbols_digest(data, names),
        "tensors": {name: described(name, x) for name, x in read(data, names).items()},
    }


def sources() -> dict[str, bytes]:
    """The files as this version writes them; tensors are named codec:what."""
    rng = np.random.default_rng(20)
    shapes = {"conv": (12, 4, 3, 3), "dense": (10, 37), "vector": (300,), "small": (5,), "scalar": (), "none": (0, 3)}
    files = {}
    for codec in CODECS:
        state = {
            f"{codec}:{what}": np.asarray(rng.laplace(0, 0.05, shape), np.float32) for what, shape in shapes.items()
        }
        if codec == "lossless":
            state |= {
                "lossless:wide": np.array([[np.iinfo(np.int64).min, np.iinfo(np.int64).max]]),
                "lossless:counter": np.array(64_000),
                "lossless:mask": np.array([True, False, True]),
            }
        if codec.startswith("symmetry"):  # what it snaps, and what it does not
            kernels = rng.laplace(0, 0.05, (12, 4, 5, 3))
            kernels[:9] += kernels[:9, ..., ::-1]
            kernels[5:7] = kernels[5:7, :, :1, :1]
            state[f"{codec}:mirrored"] = kernels.astype(np.float32)
        files[codec] = pack(state, Recipe(1e-4, (Rule(codecs=(codec,)),)))
    files["mixed"] = mixed(rng)
    for name in PRESETS:
        conv = rng.laplace(0, 0.05, (40, 12, 3, 3)).astype(np.float32)
        large = rng.laplace(0, 0.05, (260, 257)).astype(np.float32)  # beyond 2^16 symbols: all lanes of rans
        state = {f"{name}:conv": conv, f"{name}:large": large, f"{name}:vector": conv[0, :, 0, 0]}
        files[f"preset-{name}"] = pack(state, preset(name, 1e-4))
    return files | forms() | states() | latest_best() | zero_ended() | dtypes() | row_scales()


#: Small files of all versions and coders; they are the fuzzer's seeds too.
FORMS = ("rans", "mixing", "tied", "nameless", "tied-nameless", "zero-ended", *TEMPLATES)
#: Machines of more than eight states, under each coder.
STATES = ("rans-states", "mixing-states", "classes-states")


def forms() -> dict[str, bytes]:
    rng = np.random.default_rng(21)
    state: dict[str, Array] = {
        "trellis:conv": rng.laplace(0, 0.05, (6, 3, 3, 3)).astype(np.float32),
        "deadzone:dense": rng.laplace(0, 0.05, (10, 9)).astype(np.float16),
        "dct:conv": rng.laplace(0, 0.05, (4, 2, 3, 3)).astype(np.float32),
        "codebook:vector": rng.laplace(0, 1e4, (40,)),
        "lossless:bits": rng.normal(size=9).astype(np.float32),
        "lossless:counter": np.array(64_000),
    }
    rules = tuple(Rule(f"{codec}:*", (codec,)) for codec in ("trellis", "deadzone", "dct", "codebook", "lossless"))
    tied = state | {"trellis:head": state["trellis:conv"], "trellis:again": state["trellis:conv"]}
    return {
        "rans": pack(state, Recipe(1e-5, rules, "rans")),
        "mixing": pack(state, Recipe(1e-5, rules, "mixing")),
        "tied": pack(tied, Recipe(1e-5, rules)),
        "nameless": pack(state, Recipe(1e-5, rules, "rans", names=False)),
        "tied-nameless": pack(tied, Recipe(1e-5, rules, "mixing", names=False)),
        "bare": pack(state, Recipe(1e-5, rules, "rans", names=False, shapes=False)),
        "tied-bare": pack(tied, Recipe(1e-5, rules, "mixing", names=False, shapes=False)),
    }


def states() -> dict[str, bytes]:
    rng = np.random.default_rng(22)
    state = {
        f"trellis:{n}-{what}": rng.laplace(0, 0.05, shape).astype(np.float32)
        for n in (16, 32, 64)
        for what, shape in {"conv": (16, 15, 3, 3), "small": (6, 3, 3, 3)}.items()
    }
    rules = tuple(Rule(f"trellis:{n}-*", (f"trellis(states={n})",)) for n in (16, 32, 64))
    coders: tuple[CoderName, ...] = ("rans", "mixing", "classes")
    return {f"{coder}-states": pack(state, Recipe(1e-5, rules, coder)) for coder in coders}


def zero_ended() -> dict[str, bytes]:
    """Tensors whose last rows and columns are zero, with them and, in a bare file, without."""
    rng = np.random.default_rng(24)
    shapes = {
        "a-conv": (16, 3, 3, 3),
        "b-conv": (40, 16, 3, 3),
        "c-dense": (9, 160),
        "d-vector": (160,),
        "e-none": (7,),
    }
    corners = {"a-conv": (5, 3), "b-conv": (9, 5), "c-dense": (9, 37), "d-vector": (31,), "e-none": (0,)}
    state: dict[str, Array] = {}
    for name, shape in shapes.items():
        x = np.zeros(shape, np.float32)
        part = tuple(slice(length) for length in corners[name])
        x[part] = rng.laplace(0, 0.05, x[part].shape)
        state[f"{'trellis' if name == 'b-conv' else 'deadzone'}:{name}"] = x
    state |= {"lossless:mask": np.array([True, False, False]), "trellis:tied": state["trellis:b-conv"]}
    rules = tuple(Rule(f"{codec}:*", (codec,)) for codec in ("trellis", "deadzone", "lossless"))
    return {
        "zero-ended": pack(state, Recipe(1e-5, rules)),
        "cropped": pack(state, Recipe(1e-5, rules, "mixing", names=False, shapes=False)),
    }


def dtypes() -> dict[str, bytes]:
    """Those whose bits a file keeps, whatever they mean: NaNs, for one."""
    state = {}
    for name in DTYPES[13:]:
        dtype = dtype_named(name)
        raw = np.resize(np.array([0x7F, 0xFF, 0x80, 0x7E, 0xFE, 0, 1], np.uint8), 6 * dtype.itemsize)
        state[f"{BITS}{name}"] = raw.view(dtype).reshape(2, 3)
    return {"dtypes": pack(state, Recipe(1e-4))}


def row_scales() -> dict[str, bytes]:
    """Rows that cost more than others have finer steps, in more rows than a plane is wide; even ones do not."""
    rng, cost = np.random.default_rng(25), 1 / np.arange(1, 301)
    state = {f"trellis:{name}": rng.laplace(0, 0.05, (300, 16)).astype(np.float32) for name in ("tokens", "even")}
    eye = np.eye(16)[None]
    sensitivities = {
        "trellis:tokens": Sensitivity(eye, cost / cost.mean(), uneven_rows=True),
        "trellis:even": Sensitivity(eye, np.ones(300), uneven_rows=True),
    }
    return {"rowscales": pack(state, preset("fast", 1e-4, calibrated=True), sensitivities=sensitivities)}


def latest_best() -> dict[str, bytes]:
    """`preset-best` is of the time when the preset had eight states."""
    rng = np.random.default_rng(23)
    state = {"best:conv": rng.laplace(0, 0.05, (40, 12, 3, 3)), "best:vector": rng.laplace(0, 0.05, (12,))}
    return {"preset-best-64": pack({n: x.astype(np.float32) for n, x in state.items()}, preset("best", 1e-4))}


def mixed(rng: np.random.Generator) -> bytes:
    """Several codecs and dtypes in one file, symbols of all magnitudes, and statistics that are halved."""
    codecs = [codec for codec in CODECS if codec != "lossless"]
    state: dict[str, Array] = {
        f"{codec}:conv": rng.laplace(0, 0.05, (8, 3, 3, 3)).astype(np.float16) for codec in codecs
    }
    state["deadzone:wide"] = rng.laplace(0, 1, (16, 20)) * np.logspace(-4, 6, 20)
    state["deadzone:sparse"] = (rng.random((100, 400)) < 0.001).astype(np.float32)
    state["deadzone:brain"] = rng.laplace(0, 0.1, (6, 7)).astype(ml_dtypes.bfloat16)
    state["lossless:counter"] = np.array(391, np.int64)
    rules = tuple(Rule(f"{codec}:*", (codec,)) for codec in (*codecs, "lossless"))
    return pack(state, Recipe(3e-5, rules))


def write_golden() -> None:
    missing = {name: data for name, data in sources().items() if name not in manifest()}
    for name, data in missing.items():
        (GOLDEN / f"{name}.evc").write_bytes(data)
    entries = manifest() | {name: entry(data, template(name)) for name, data in missing.items()}
    MANIFEST.write_text(json.dumps(dict(sorted(entries.items())), indent=1) + "\n")


@functools.cache
def manifest() -> dict[str, Any]:
    stored: dict[str, Any] = json.loads(MANIFEST.read_text())
    return stored


NAMES = sorted(
    [
        *CODECS,
        "mixed",
        "dtypes",
        "rowscales",
        *FORMS,
        *STATES,
        "preset-best-64",
        *(f"preset-{name}" for name in PRESETS),
    ]
)


def test_no_golden_file_is_missing_and_none_is_an_orphan() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == {"manifest.json"} | {f"{name}.evc" for name in manifest()}
    assert sorted(manifest()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_golden_file_decodes_as_ever(name: str) -> None:
    data = (GOLDEN / f"{name}.evc").read_bytes()
    expected, found = manifest()[name], entry(data, template(name))
    assert found["sha256"] == expected["sha256"], "the stored file itself was changed"
    assert found["version"] == expected["version"] and found["symbols_sha256"] == expected["symbols_sha256"]
    assert list(found["tensors"]) == list(expected["tensors"])
    for tensor, stored in expected["tensors"].items():
        now = found["tensors"][tensor]
        rounding = 1e-6 * stored["norm"] * max(np.prod(stored["shape"]), 1)
        assert {k: now[k] for k in ("dtype", "shape")} == {k: stored[k] for k in ("dtype", "shape")}
        assert now.get("sha256") == stored.get("sha256")
        assert now["projections"] == pytest.approx(stored["projections"], rel=0, abs=rounding)


@pytest.mark.parametrize("name", sorted(CODECS))
def test_a_golden_file_really_uses_its_codec(name: str) -> None:
    infos, _ = inspect((GOLDEN / f"{name}.evc").read_bytes())
    stages = [stage.split("(")[0] for stage in CODECS[name].split("+")]
    assert all([stage.split("(")[0] for stage in info.codec.split("+")] == stages for info in infos)


def test_the_golden_files_are_of_every_version_and_coder() -> None:
    files = [(GOLDEN / f"{name}.evc").read_bytes() for name in NAMES]
    assert {(data[3], parse(data).coder.number) for data in files} == {
        (1, 0), (2, 1), (2, 2), (3, 0), (3, 1), (3, 2), (4, 1), (4, 2), (5, 2),
    }  # fmt: skip
    assert {parse(data).lost_names is None for data in files} == {True, False}
    tied = [name for name in NAMES for entry in parse((GOLDEN / f"{name}.evc").read_bytes(), template(name)).tensors
            if entry.source is not None]  # fmt: skip
    assert {"tied", "tied-bare"} <= set(tied)


CHILD = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import warnings
warnings.simplefilter("ignore")
import test_golden as golden
for name in golden.NAMES:
    print(name, golden.symbols_digest((golden.GOLDEN / (name + ".evc")).read_bytes(), golden.template(name)))
"""


def vector_extensions() -> str:
    """The processor's optional extensions that numpy would use here, as NPY_DISABLE_CPU_FEATURES wants them."""
    from numpy._core._multiarray_umath import (  # type: ignore[import-not-found]  # pyright: ignore
        __cpu_dispatch__,
        __cpu_features__,
    )

    return " ".join(feature for feature in __cpu_dispatch__ if __cpu_features__.get(feature))


@pytest.mark.parametrize("kind", ["four threads", "no vector extensions"])
def test_symbols_are_the_same_under_other_threads_and_instructions(kind: str) -> None:
    threads = {"OMP_NUM_THREADS": "4", "OPENBLAS_NUM_THREADS": "4", "MKL_NUM_THREADS": "4"}
    plain = {"NPY_DISABLE_CPU_FEATURES": vector_extensions(), "OPENBLAS_CORETYPE": "generic"}
    env = {**os.environ, **(threads if kind == "four threads" else plain)}
    done = subprocess.run([sys.executable, "-c", CHILD], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = dict(line.split() for line in done.stdout.splitlines())
    assert found == {name: manifest()[name]["symbols_sha256"] for name in NAMES}


if __name__ == "__main__":
    if sys.argv[1:] != ["--write-golden"]:
        sys.exit("usage: python tests/codecs/test_golden.py --write-golden")
    write_golden()
