"""What train.py and select.py call; the only package that knows Hydra."""
