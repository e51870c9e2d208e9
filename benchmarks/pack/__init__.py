"""Whole files against NNCodec and against what users do today."""
