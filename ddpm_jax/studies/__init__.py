"""Pictures of a trained run, with one module for each paper, and the tour of the mathematics."""
