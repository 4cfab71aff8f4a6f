package runtime_test

import "testing"

// System calls do what they are to do before, while and after gVisor patches the
// instruction that makes them, and when signals interrupt them.
func TestPatchedCalls(t *testing.T) {
	h := newHost(t)
	var got struct {
		Before, After byte
		Error         string
	}
	h.launch(t, h.spec(t, "calls"))(&got)
	if got.Error != "" {
		t.Fatal(got.Error)
	}
	if got.Before != 0x0f || got.After != 0xe9 { // syscall, jmp
		t.Errorf("the instruction began with %#x, and later with %#x", got.Before, got.After)
	}
}
