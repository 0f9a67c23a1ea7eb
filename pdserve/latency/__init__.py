"""How long prefill, decode and transfer take: the one predictor of planner and router."""
