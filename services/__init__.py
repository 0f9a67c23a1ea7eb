"""The three processes: gRPC in, scheduling, gRPC out."""
