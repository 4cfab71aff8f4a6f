// Package elsewhere lets tests act in other network namespaces than the host's.
package elsewhere

import (
	"errors"
	"runtime"

	"github.com/vishvananda/netns"
)

// New makes a network namespace, which is there until the handle, and every socket
// and process in it, is closed.
func New() (netns.NsHandle, error) {
	made := netns.None()
	err := away(func() (err error) {
		made, err = netns.New()
		return err
	})
	return made, err
}

// In calls fn on a thread in a network namespace. Sockets that fn opens stay there.
func In(ns netns.NsHandle, fn func() error) error {
	return away(func() error {
		if err := netns.Set(ns); err != nil {
			return err
		}
		return fn()
	})
}

// away calls fn on a thread that comes back from where fn has gone. One that cannot
// come back ends with its goroutine.
func away(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := netns.Get()
		if err != nil {
			done <- err
			return
		}
		defer home.Close()
		err = fn()
		if back := netns.Set(home); back != nil {
			done <- errors.Join(err, back)
			return
		}
		runtime.UnlockOSThread()
		done <- err
	}()
	return <-done
}
