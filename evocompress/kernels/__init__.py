"""What each kernel of a network does: frequency response, class in plain words with a confidence, Gabor fit."""

from evocompress.kernels.analysis import KernelRow, analyse, compare
from evocompress.kernels.banks import with_banks
from evocompress.kernels.classify import CLASSES, Kernel, KernelClass, classify
from evocompress.kernels.response import frequency_response
from evocompress.kernels.tables import rows_as_objects, write_csv, write_json

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
