"""The program that vigild executes as control: options, wiring, and the order of start."""
