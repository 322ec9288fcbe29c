"""The mathematics of searching: which candidates to evaluate, and which to stop."""
