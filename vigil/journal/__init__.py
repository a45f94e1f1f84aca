"""What outlives control: the journal, the latest values in it, and the counters of metrics, each in a parked memfd."""
