"""A discrete-event simulation of a cluster: every request, every change of every batch.

Its state is arrays and its functions are compiled; `simulate` is the door. docs/planner.md says
what is modelled and what is not.
"""
