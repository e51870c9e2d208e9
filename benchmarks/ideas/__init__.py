"""Ideas, each alone and in a search."""
