"""Entropy coders and codecs by themselves: speed and size."""
