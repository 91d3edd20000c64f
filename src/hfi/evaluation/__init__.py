"""Stage 7: the erased model beside the original, in numbers with intervals."""
