"""The configuration, completed and checked before anything runs."""
