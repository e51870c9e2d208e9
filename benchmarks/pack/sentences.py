"""Sentences that every machine with Python has: the first paragraphs of the standard library's docstrings."""

from __future__ import annotations

import ast
import functools
import random
import sysconfig
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

__all__ = ["LENGTH", "WordPiece", "sentences"]

#: Tokens of a sentence, the two at its ends included; longer ones are cut, shorter ones padded with 0.
LENGTH = 32
_LEAVE_OUT = {"test", "idlelib", "lib2to3", "site-packages", "dist-packages", "__pycache__"}


@functools.cache
def sentences() -> tuple[str, ...]:
    """All of them, of 4 to 60 words, each once, in an order that is random but always the same."""
    root = Path(sysconfig.get_path("stdlib"))
    files = sorted(path for path in root.rglob("*.py") if not _LEAVE_OUT & set(path.relative_to(root).parts))
    texts = {text for path in files for text in _docstrings(path) if 4 <= len(text.split()) <= 60}
    ordered = sorted(texts)
    random.Random(0).shuffle(ordered)
    return tuple(ordered)


def _docstrings(path: Path) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
            paragraph = (ast.get_docstring(node) or "").partition("\n\n")[0]
            yield " ".join(paragraph.split())


class WordPiece:
    """BERT's tokeniser for lower case: words and punctuation, then the longest pieces of the vocabulary."""

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self._index = {token: index for index, token in enumerate(vocabulary)}

    def __call__(self, texts: Sequence[str], length: int = LENGTH) -> Tensor:
        """Tokens (n, length), int64."""
        rows = torch.zeros(len(texts), length, dtype=torch.int64)
        for row, text in zip(rows, texts, strict=True):
            pieces = [piece for word in _words(text) for piece in self._pieces(word)][: length - 2]
            tokens = [self._index[piece] for piece in ("[CLS]", *pieces, "[SEP]")]
            row[: len(tokens)] = torch.tensor(tokens)
        return rows

    def _pieces(self, word: str) -> list[str]:
        pieces: list[str] = []
        start = 0
        while start < len(word):
            prefix = "##" if start else ""
            ends = range(len(word), start, -1)
            end = next((end for end in ends if prefix + word[start:end] in self._index), None)
            if end is None:
                return ["[UNK]"]
            pieces.append(prefix + word[start:end])
            start = end
        return pieces


def _words(text: str) -> list[str]:
    plain = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
    spaced = (f" {c} " if _is_punctuation(c) else c for c in plain)
    return "".join(spaced).split()


def _is_punctuation(character: str) -> bool:
    ascii_symbol = character.isascii() and character.isprintable() and not (character.isalnum() or character == " ")
    return ascii_symbol or unicodedata.category(character).startswith("P")
