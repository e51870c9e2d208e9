"""Small helpers that any package may use: words, sizes, atomic files, objects that a user names, figure style."""
