package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/yamux"

	"github.com/innerdock/innerdock/pkg/agent/wire"
)

const (
	firstPause       = 2 * time.Millisecond
	longestPause     = 250 * time.Millisecond
	handshakeTimeout = 10 * time.Second
)

// serve keeps one connection to the server until ctx ends. The server may go
// away and come back at any time, and after a restore it is another one.
func (a *Agent) serve(ctx context.Context) {
	pause := firstPause
	for ctx.Err() == nil {
		served, err := a.session(ctx)
		if served {
			pause = firstPause
		}
		if err != nil {
			a.cfg.Log.Debug("connection to the server", "error", err)
		}
		if served {
			continue // dial again at once
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
		pause = min(2*pause, longestPause)
	}
}

// session dials once and serves HTTP on the streams that the server opens. It
// reports whether it came to that.
func (a *Agent) session(ctx context.Context) (served bool, err error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", a.cfg.Socket)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := handshake(conn, a.cfg.Version); err != nil {
		return false, err
	}
	session, err := wire.Server(conn)
	if err != nil {
		return false, err
	}
	var kept sync.WaitGroup
	kept.Go(func() { wire.KeepAlive(session, func() bool { return false }) })
	defer kept.Wait()
	defer session.Close()
	server := &http.Server{
		Handler:     a.handler,
		ErrorLog:    slog.NewLogLogger(a.cfg.Log.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	err = server.Serve(session)
	server.Close()
	if errors.Is(err, yamux.ErrSessionShutdown) || errors.Is(err, io.EOF) {
		err = nil
	}
	return true, err
}

// handshake introduces the agent and reads the answer, without reading past it.
func handshake(conn net.Conn, version string) error {
	conn.SetDeadline(time.Now().Add(handshakeTimeout))
	defer conn.SetDeadline(time.Time{})
	hello, err := json.Marshal(wire.Hello{Protocol: wire.Version, Agent: version})
	if err != nil {
		return err
	}
	if _, err := conn.Write(append(hello, '\n')); err != nil {
		return err
	}
	line, err := wire.ReadLine(conn)
	if err != nil {
		return fmt.Errorf("reading the welcome: %w", err)
	}
	var welcome wire.Welcome
	if err := json.NewDecoder(bytes.NewReader(line)).Decode(&welcome); err != nil {
		return fmt.Errorf("reading the welcome: %w", err)
	}
	if welcome.Error != "" {
		return fmt.Errorf("the server refused: %s", welcome.Error)
	}
	return nil
}
