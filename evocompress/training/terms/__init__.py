"""The terms of training that need no idea: one file each. `evocompress.extensions.TERMS` lists all there are."""
