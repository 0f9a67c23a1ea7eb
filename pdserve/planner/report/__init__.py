"""The report on a plan: in words, on the terminal, as JSON and as one HTML page."""
