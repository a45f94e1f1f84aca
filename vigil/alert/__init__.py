"""Alerts: which changes of checks are told to whom, in which form, and what becomes of each delivery."""
