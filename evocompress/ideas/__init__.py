"""Optional parts that the core does not know: each registers itself in `evocompress.extensions`."""
