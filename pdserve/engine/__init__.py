"""The model engine: torch only, no gRPC, no asyncio."""
