"""What is done to a run: training, sampling, measuring, planning, converting. Plain functions; nothing is printed."""
