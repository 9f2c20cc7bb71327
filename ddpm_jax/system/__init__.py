"""The machine: settings of a process on a CPU, and files that are written whole."""
