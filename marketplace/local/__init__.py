"""The market on one machine: every process started by command, watched, and stopped in order."""
