"""Training, sampling, evaluation, planning and conversion of a run, as plain functions that print nothing."""
