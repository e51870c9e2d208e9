"""The main job: a configuration, its genomes and segments, and the driver that searches a population of them."""
