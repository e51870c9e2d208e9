"""What each idea of `in_search` changes in the configuration, and what it is compared with."""

from __future__ import annotations

__all__ = ["IDEAS", "WITHOUT"]

_SMALL = ['model="benchmarks.ideas.in_search:SmallCNN"', "genes.rate_weight=[1e-5,3e-2]"]
_SACCADES = ['model="saccade_cnn"', "genes.rate_weight=[1e-5,3e-2]"]
_CONNECTED = ['model="connected_cnn"', "genes.rate_weight=[1e-5,3e-2]"]
_CONV = ["deadzone", "dct", "dct-matrix", "codebook", "lowrank", "deadzone | dct | lowrank"]


def _codecs(*more: str) -> str:
    options = ", ".join(f'"{codec}"' for codec in (*_CONV, *more))
    return f"genes.codecs={{conv=[{options}]}}"


#: Settings by name, as `--set` takes them.
IDEAS: dict[str, list[str]] = {
    "plain": [*_SMALL, _codecs()],
    "linearconv": [
        *_SMALL, _codecs(), "genes.alpha=[0.25,1.0]", "genes.rank=[0.1,1.0]", "genes.correlation=[1e-4,1e-1]",
    ],
    "symmetry": [*_SMALL, _codecs("symmetry", "symmetry-trellis"), "genes.symmetry=[1e-4,1e-1]"],
    "snapping": [*_SMALL, _codecs("symmetry", "symmetry-trellis"), "genes.snap=[0.0,1.0]"],
    "entropy and distinct values": [*_SMALL, _codecs(), "genes.entropy=[1e-4,1e-1]", "genes.distinct=[1e-4,1e-1]"],
    "coordinates": [*_SMALL, _codecs("coordinates", "coordinates-lowrank")],
    "saccades": [*_SACCADES, "model_options={width=8, cost_weight=0.1}"],
    "connections": [
        *_CONNECTED, "genes.near=[0.0,0.5]", "genes.decay=[0.25,0.75]", "genes.far=[1e-7,0.01]",
        "genes.thin=[0.02,0.3]",
    ],
    "kernels only": [*_CONNECTED, "model_options={plan={near=0, far=0}}", "genes.thin=[0.02,0.3]"],
    "dense": [*_SACCADES, "model_options={width=8, dense=3}"],
}  # fmt: skip

#: Each idea to the name of what it is compared with.
WITHOUT: dict[str, str] = {
    **dict.fromkeys(("linearconv", "symmetry", "snapping", "entropy and distinct values", "coordinates"), "plain"),
    "connections": "kernels only",
    "saccades": "dense",
}
