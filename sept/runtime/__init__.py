"""What the work runs on: devices, processes, signals, progress."""
