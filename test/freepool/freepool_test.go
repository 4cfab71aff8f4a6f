package freepool

import "testing"

// Two that ask at the same time have different pools, until one is given back.
func TestAPoolIsOneTests(t *testing.T) {
	first, err := In(254)
	if err != nil {
		t.Fatal(err)
	}
	second, err := In(254)
	if err != nil {
		t.Fatal(err)
	}
	defer Release(second)
	if first.Overlaps(second) {
		t.Errorf("both have %s", first)
	}
	Release(first)
	again, err := In(254)
	if err != nil {
		t.Fatal(err)
	}
	defer Release(again)
	if again != first {
		t.Errorf("what was given back, %s, is not given again: %s", first, again)
	}
}
