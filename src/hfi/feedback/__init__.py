"""Stage 2: judgements. Tables, store, import and export, simulated annotators, agreement. The store needs no torch."""
