"""What tries to bring an erased concept back; serves evaluation, and later hardening."""
