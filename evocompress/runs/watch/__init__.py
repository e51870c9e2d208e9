"""Live page of a run in a browser: what it shows, and the server of this machine that gives it out."""
