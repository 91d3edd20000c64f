"""The proof: every claim as a table that one command remakes, cell by cell (`make proof`, docs/proof.md). Not installed."""
