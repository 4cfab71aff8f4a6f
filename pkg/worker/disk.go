package worker

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/innerdock/innerdock"
)

const (
	// diskPace is how often what sandboxes have on the disk is measured.
	diskPace = 500 * time.Millisecond
	// diskPatience is how long a sandbox may have more than its limit there.
	diskPatience = 10 * time.Second
	// hostReserve of the server's disk is not given to new sandboxes, and below
	// hostFloor the largest sandbox ends, so that the others and the host go on.
	hostReserve = 1 << 30
	hostFloor   = 512 << 20
)

// diskSlack is how much more than its limit a sandbox may have on the host's
// disk without being noticed: what was deleted in it is given back a little later.
func diskSlack(disk int64) int64 { return max(disk/20, 64<<20) }

// guardDisks ends sandboxes that have more on disk than they may, until the
// worker closes. gVisor keeps what a sandbox writes (to its root, /tmp and Docker's
// data) to the limit, as the sandbox sees it; what it gives back to the host is
// seen to here, where no agent is needed.
func (w *Worker) guardDisks() {
	tick := time.NewTicker(diskPace)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			w.measureDisks()
		case <-w.ctx.Done():
			return
		}
	}
}

func (w *Worker) measureDisks() {
	w.mu.Lock()
	sandboxes := make([]*sandbox, 0, len(w.live))
	for _, s := range w.live {
		sandboxes = append(sandboxes, s)
	}
	w.mu.Unlock()
	var largest *sandbox
	var most int64
	for _, s := range sandboxes {
		select {
		case <-s.watched:
		default:
			continue // it is being made
		}
		size := s.filestores.Size()
		switch over := size > s.disk+diskSlack(s.disk); {
		case !over:
			s.overDisk = time.Time{}
		case s.overDisk.IsZero():
			s.overDisk = time.Now()
		case time.Since(s.overDisk) > diskPatience:
			w.fail(s, fmt.Sprintf("its disk is full, and it goes on writing: root, /tmp and Docker's data have %d MiB together, of %d; create it with more disk=", size>>20, s.disk>>20))
			continue
		}
		if largest == nil || size > most {
			largest, most = s, size
		}
	}
	if free := freeDisk(w.Data); free < hostFloor && largest != nil {
		w.fail(largest, fmt.Sprintf("the server's disk has only %d MiB left, and of all sandboxes it used most of it (%d MiB)", free>>20, most>>20))
	}
}

// fail ends a sandbox that cannot go on, in the background.
func (w *Worker) fail(s *sandbox, reason string) {
	select {
	case <-s.ctx.Done():
		return // it is ending
	default:
	}
	s.log.Warn("the sandbox is ended", "reason", reason)
	w.wg.Go(func() {
		<-s.settled
		_ = w.end(s, ending{state: innerdock.StateFailed, reason: reason}) // logged there
	})
}

// checkHostDisk refuses a sandbox that the server's disk has no room for.
func (w *Worker) checkHostDisk() error {
	if free := freeDisk(w.Data); free < hostReserve {
		return innerdock.Errorf(innerdock.CodeUnavailable, "the server's disk has only %d MiB left, and %d are kept free; "+
			"terminate sandboxes or remove images", free>>20, int64(hostReserve)>>20)
	}
	return nil
}

// freeDisk returns how much may still be written below dir, in bytes.
func freeDisk(dir string) int64 {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return 1 << 62 // no bound is better than ending everything
	}
	return int64(fs.Bavail) * fs.Bsize
}
