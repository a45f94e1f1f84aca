"""HTTP as a client speaks it: which proxy to take, and one request with one deadline."""
