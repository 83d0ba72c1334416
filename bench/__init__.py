"""The latency benchmark: contenders behind one protocol, scenarios, one runner. See README.md."""
