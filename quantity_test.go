package innerdock_test

import (
	"testing"

	"github.com/innerdock/innerdock"
)

func TestParseQuantity(t *testing.T) {
	good := map[string]int64{
		"1073741824": 1 << 30, "512Mi": 512 << 20, "4Gi": 4 << 30, "4GiB": 4 << 30,
		"1.5G": 1_500_000_000, "2GB": 2_000_000_000, "10k": 10_000, "1Ti": 1 << 40, "7B": 7,
	}
	for text, want := range good {
		if got, err := innerdock.ParseQuantity("memory", text); err != nil || got != want {
			t.Errorf("ParseQuantity(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "4GB!", "Gi", "-1Gi", "0", "NaN", "inf", "1e300Gi", "4 Gi", "4iG", "4BB", "0x10", "1Gi2"} {
		got, err := innerdock.ParseQuantity("memory", text)
		if innerdock.CodeOf(err) != innerdock.CodeInvalid {
			t.Errorf("ParseQuantity(%q) = %d, %v; want an error of code invalid", text, got, err)
		}
	}
}

func TestTransitions(t *testing.T) {
	states := []innerdock.SandboxState{innerdock.StateCreating, innerdock.StateRunning, innerdock.StatePaused,
		innerdock.StateTerminating, innerdock.StateTerminated, innerdock.StateFailed}
	legal := map[[2]innerdock.SandboxState]bool{
		{"creating", "running"}: true, {"creating", "terminating"}: true, {"creating", "failed"}: true,
		{"running", "paused"}: true, {"paused", "running"}: true,
		{"paused", "terminating"}: true, {"paused", "failed"}: true,
		{"running", "terminating"}: true, {"running", "failed"}: true,
		{"terminating", "terminated"}: true, {"terminating", "failed"}: true,
	}
	for _, from := range states {
		for _, to := range states {
			err := from.To(to)
			if want := from == to || legal[[2]innerdock.SandboxState{from, to}]; (err == nil) != want {
				t.Errorf("%s → %s: %v; legal is %v", from, to, err, want)
			}
		}
	}
}
