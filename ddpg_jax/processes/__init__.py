"""The operating system: devices, signals, streams, and the processes of a run."""
