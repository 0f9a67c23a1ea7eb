"""gRPC: generated stubs, servers, channels, and the one mapping of errors to status codes."""
