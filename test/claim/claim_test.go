package claim

import "testing"

func TestWhatIsTakenIsOnes(t *testing.T) {
	const name = "claim-test"
	take := func(want bool) {
		t.Helper()
		if taken, err := Take(name); err != nil || taken != want {
			t.Fatalf("taken: %v, %v; want %v", taken, err, want)
		}
	}
	take(true)
	take(false)
	Give(name)
	take(true)
	Give(name)
	Give(name) // twice is fine
}
