"""Settings of each idea of `in_search`, and what it is compared with."""

from __future__ import annotations

__all__ = ["IDEAS", "WITHOUT"]

_SACCADES = ['model="saccade_cnn"', "genes.start_width=1.0"]
_CONNECTED = ['model="connected_cnn"', "genes.start_width=1.0"]
_PLAIN_PLAN = "model_options={image_size=8, plan={near=0, far=0}}"
_CONV = [
    "deadzone", "dct", "dct-matrix", "wavelet", "codebook", "lowrank", "linearconv", "dct-linearconv",
    "deadzone | dct | lowrank",
]  # fmt: skip


def _codecs(*more: str) -> str:
    options = ", ".join(f'"{codec}"' for codec in (*_CONV, *more))
    return f"genes.codecs={{conv=[{options}]}}"


#: Settings by name, as `--set` takes them.
IDEAS: dict[str, list[str]] = {
    "plain": [_codecs()],
    "linearconv": [
        _codecs(), "genes.alpha=[0.25,1.0]", "genes.rank=[0.1,1.0]", "genes.correlation=[1e-4,1e-1]",
    ],
    "symmetry": [_codecs("symmetry", "symmetry-trellis"), "genes.symmetry=[1e-4,1e-1]"],
    "snapping": [_codecs("symmetry", "symmetry-trellis"), "genes.snap=[0.0,1.0]"],
    "entropy and distinct values": [_codecs(), "genes.entropy=[1e-4,1e-1]", "genes.distinct=[1e-4,1e-1]"],
    "coordinates": [_codecs("coordinates", "coordinates-lowrank")],
    "saccades": [*_SACCADES, "model_options={width=8, block=2, cost_weight=0.1}"],
    "connections": [
        *_CONNECTED, "model_options={image_size=8}", "genes.near=[0.0,0.5]", "genes.decay=[0.25,0.75]",
        "genes.far=[1e-7,0.01]", "genes.thin=[0.02,0.3]",
    ],
    "kernels only": [*_CONNECTED, _PLAIN_PLAN, "genes.thin=[0.02,0.3]"],
    "dense": [*_SACCADES, "model_options={width=8, dense=3}"],
}  # fmt: skip

#: Each idea to the name of what it is compared with.
WITHOUT: dict[str, str] = {
    **dict.fromkeys(("linearconv", "symmetry", "snapping", "entropy and distinct values", "coordinates"), "plain"),
    "connections": "kernels only",
    "saccades": "dense",
}
