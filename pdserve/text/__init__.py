"""Text to tokens and back; no torch."""
