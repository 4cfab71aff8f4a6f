package freeport

import (
	"net"
	"os/exec"
	"sync"
	"testing"
)

// A port is free for who asked for it, also while the process starts programs.
func TestAPortIsFree(t *testing.T) {
	stop := make(chan struct{})
	var starters sync.WaitGroup
	for range 4 {
		starters.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := exec.Command("true").Run(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 1000 {
		listener, err := net.Listen("tcp4", Address(t))
		if err != nil {
			t.Error(err)
			break
		}
		_ = listener.Close()
	}
	close(stop)
	starters.Wait()
}
