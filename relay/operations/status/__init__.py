"""What is stuck, why, and was anything lost? status.py puts together what its neighbours find."""
