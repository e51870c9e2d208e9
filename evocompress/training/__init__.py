"""Training for small files: genes, the trainer, and the terms that it adds to the loss."""
