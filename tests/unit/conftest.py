"""Makes the helpers beside this file importable by every unit test."""
