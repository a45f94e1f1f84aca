"""Services: what each is doing and shall do, decided in a pure machine and done by an actor."""
