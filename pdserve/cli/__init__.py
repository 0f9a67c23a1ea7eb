"""The pdserve command."""
