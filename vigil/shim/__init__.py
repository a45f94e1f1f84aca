"""control's side of the link to PID 1: the messages, their packing, and the socket."""
