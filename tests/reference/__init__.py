"""Independent references that the tests compare against."""
