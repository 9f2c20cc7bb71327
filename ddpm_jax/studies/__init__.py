"""Pictures of a trained run, one file a paper, and the tour of the mathematics."""
