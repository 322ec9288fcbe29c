"""What a run shows of itself: pictures, progress and explanations."""
