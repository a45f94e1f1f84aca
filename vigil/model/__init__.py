"""Words that every room shares: states, errors, durations, signals, log entries and the JSON shapes of the API."""
