"""KV blocks, their layout, and their transfer between instances."""
