"""The tests, tested: a catalogue of mistakes, and a runner that makes each one and expects a test to fail."""
