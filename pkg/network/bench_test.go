package network

import "testing"

// BenchmarkAttach is the time that networking adds to the start of a sandbox.
func BenchmarkAttach(b *testing.B) {
	n := open(b, Config{})
	for b.Loop() {
		attach(b, n, 1, Policy{})
		b.StopTimer()
		if err := n.Detach(b.Context(), id("abcd", 1)); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

// BenchmarkDetach is the time that it adds to the end.
func BenchmarkDetach(b *testing.B) {
	n := open(b, Config{})
	for b.Loop() {
		b.StopTimer()
		attach(b, n, 1, Policy{})
		b.StartTimer()
		if err := n.Detach(b.Context(), id("abcd", 1)); err != nil {
			b.Fatal(err)
		}
	}
}
