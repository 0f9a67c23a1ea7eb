"""What a model is and where its files are; no torch."""
