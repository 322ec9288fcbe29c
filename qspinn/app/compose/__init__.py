"""The configuration: what is completed and checked in it before anything runs."""
