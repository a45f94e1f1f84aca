"""The overlord: owns the plan and the services' actors, routes commands and events, decides the order."""
