"""Stages 3 and 4: r_psi(x) learned from judgements, and the top-K pictures with their weights."""
