"""What stands between a client and pods: programs that benches start, measure and end."""
