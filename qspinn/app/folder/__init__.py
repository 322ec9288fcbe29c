"""The folder of a run: its names, files, lock and owner."""
