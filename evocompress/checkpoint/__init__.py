"""State dict to file and back: recipes, presets, packing, loading, and the weight files of other people."""
