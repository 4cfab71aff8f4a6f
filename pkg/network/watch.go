package network

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// settle is how long what is watched must be quiet before it is looked at: reloads
// come in several transactions.
const settle = 100 * time.Millisecond

// watched is what the kernel tells of: a family of netlink and groups of it.
type watched struct {
	family int
	groups []uint32
}

var (
	filterChanges = watched{unix.NETLINK_NETFILTER, []uint32{unix.NFNLGRP_NFTABLES}}
	linkChanges   = watched{unix.NETLINK_ROUTE, []uint32{unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR}}
)

// watcher calls back after every change on the host, whoever made it.
type watcher struct {
	conn   *netlink.Conn
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
}

var errClosed = errors.New("the network was closed")

// watch calls changed, never twice at once, until the watcher is closed or ctx
// ends.
func watch(ctx context.Context, log *slog.Logger, what watched, changed func(context.Context)) (*watcher, error) {
	conn, err := netlink.Dial(what.family, nil)
	if err != nil {
		return nil, err
	}
	for _, group := range what.groups {
		if err := conn.JoinGroup(group); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
	}
	w := &watcher{conn: conn}
	ctx, w.cancel = context.WithCancelCause(ctx)
	events := make(chan struct{}, 1)
	w.wg.Go(func() { w.receive(events, log) })
	w.wg.Go(func() { debounce(ctx, events, changed) })
	return w, nil
}

// receive turns messages into events; what they say does not matter, nor that
// some were lost.
func (w *watcher) receive(events chan<- struct{}, log *slog.Logger) {
	defer close(events)
	for {
		if _, err := w.conn.Receive(); err != nil && !errors.Is(err, unix.ENOBUFS) {
			if !errors.Is(err, unix.EBADF) {
				log.Debug("no longer watching the host's network", "err", err)
			}
			return
		}
		select {
		case events <- struct{}{}:
		default:
		}
	}
}

// debounce calls changed at the first event, and once more when the events have
// settled.
func debounce(ctx context.Context, events <-chan struct{}, changed func(context.Context)) {
	quiet := time.NewTimer(settle)
	quiet.Stop()
	defer quiet.Stop()
	waiting := false
	for {
		select {
		case _, ok := <-events:
			if !ok {
				return
			}
			if !waiting {
				changed(ctx)
			}
			waiting = true
			quiet.Reset(settle)
		case <-quiet.C:
			waiting = false
			changed(ctx)
		case <-ctx.Done():
			return
		}
	}
}

func (w *watcher) close() error {
	w.cancel(errClosed)
	err := w.conn.Close()
	w.wg.Wait()
	return err
}
