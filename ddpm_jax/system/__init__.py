"""The machine: settings of a process that computes on a CPU, and files that are written completely or not at all."""
