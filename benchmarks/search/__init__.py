"""The population search: its ablations, its speed, whole runs."""
