"""Requests over time: traces that were recorded or drawn, and what is done to them."""
