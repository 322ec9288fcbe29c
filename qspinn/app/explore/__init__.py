"""Many runs: multiruns, launchers, worker processes and searches."""
