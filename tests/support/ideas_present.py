"""Presence of ideas: each folder of evocompress/ideas/ may be deleted, with its tests."""

from __future__ import annotations

import importlib.util

import pytest

__all__ = ["IDEAS", "with_all_ideas"]

IDEAS = ("connections", "kernels", "linearconv", "saccades", "symmetry")

#: For tests of what speaks of the whole house, such as its pages.
with_all_ideas = pytest.mark.skipif(
    any(importlib.util.find_spec(f"evocompress.ideas.{idea}") is None for idea in IDEAS),
    reason="an idea's folder is gone",
)
