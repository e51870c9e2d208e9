"""Kernel analysis: frequency response, class in plain words with a confidence, Gabor fit."""

from evocompress.ideas.kernels.analysis import KernelRow, analyse, compare
from evocompress.ideas.kernels.classify import CLASSES, Kernel, KernelClass, classify
from evocompress.ideas.kernels.linearconv_banks import with_banks
from evocompress.ideas.kernels.response import frequency_response
from evocompress.ideas.kernels.tables import rows_as_objects, write_csv, write_json

__all__ = [
    "CLASSES",
    "Kernel",
    "KernelClass",
    "KernelRow",
    "analyse",
    "classify",
    "compare",
    "frequency_response",
    "rows_as_objects",
    "with_banks",
    "write_csv",
    "write_json",
]
