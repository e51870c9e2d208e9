"""Sensitivities: what an error in a weight costs, measured on a network; one file per kind of layer."""
