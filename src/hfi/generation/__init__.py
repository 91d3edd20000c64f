"""Stage 1: the original model draws the pictures that people will judge."""
