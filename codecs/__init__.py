"""Lossy codecs, their entropy coder and the `.evc` container: weight tensors to bytes and back.

Nothing here knows of networks, torch or Ray; decoding a file needs no more than this folder. A codec is a chain of
stages (registry.py lists them); choice.py picks one per tensor; container.py writes and reads files (FORMAT.md).
"""

from evocompress.codecs.choice import Trial, best, choose, try_codec
from evocompress.codecs.codec import Codec, Coded, Cost, Stage
from evocompress.codecs.container import Record, Writer, iterate, read
from evocompress.codecs.inspection import TensorInfo, inspect
from evocompress.codecs.registry import CODECS, LOSSLESS, STAGES, codec_spec, parse_codec
from evocompress.codecs.sensitivity import Sensitivity

__all__ = [
    "CODECS",
    "LOSSLESS",
    "STAGES",
    "Codec",
    "Coded",
    "Cost",
    "Record",
    "Sensitivity",
    "Stage",
    "TensorInfo",
    "Trial",
    "Writer",
    "best",
    "choose",
    "codec_spec",
    "inspect",
    "iterate",
    "parse_codec",
    "read",
    "try_codec",
]
