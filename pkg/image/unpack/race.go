//go:build race

package unpack

// With the race detector a process waits for a second at its end, if not told
// otherwise: most of the time that tests would take.
func init() { environ = []string{"GORACE=atexit_sleep_ms=0"} }
