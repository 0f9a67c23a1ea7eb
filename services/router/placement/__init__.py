"""How a pair of instances is chosen for a request."""
