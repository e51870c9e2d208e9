"""What networks are for: one file per task."""
