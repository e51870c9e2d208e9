"""Training: the rate model, dead parts, teachers, and the GPU against the CPU."""
