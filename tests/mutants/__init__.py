"""Small faults, each put into a copy of the package, and the tests that must find it there."""
