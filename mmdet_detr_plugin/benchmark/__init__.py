"""Speed and memory against other DETRs on the same work; what ``tools/benchmark.py`` runs."""
