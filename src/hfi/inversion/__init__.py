"""Stage 5: reward-weighted textual inversion of the top-K pictures into soft tokens v*."""
