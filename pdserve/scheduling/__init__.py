"""Scheduling policies: plain classes over plain data, shared by services and planner."""
