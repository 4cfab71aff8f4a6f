// Package serving runs an innerdock server of one's own: the real binary in a
// directory and in addresses that nothing else has.
package serving

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/test/freepool"
)

// Options say what server it is.
type Options struct {
	Binary string // innerdock
	Runsc  string
	Images string    // the directory of built images, which servers share
	Second byte      // its pool begins with 10.Second
	Flags  []string  // of `innerdock server`, and more than the above
	Log    io.Writer // the server's standard error
}

// Server is one server, which may be started and ended again and again.
type Server struct {
	Client *innerdock.Client

	options Options
	dir     string
	pool    netip.Prefix
	cmd     *exec.Cmd
	exited  chan struct{} // closed when cmd has ended
}

// New makes a server's place; Start starts it.
func New(o Options) (*Server, error) {
	pool, err := freepool.In(o.Second)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("/var/tmp", "idk-")
	if err != nil {
		freepool.Release(pool)
		return nil, err
	}
	s := &Server{options: o, dir: dir, pool: pool}
	s.Client, err = innerdock.New("unix://"+s.socket(), "")
	return s, err
}

func (s *Server) socket() string { return filepath.Join(s.dir, "api.sock") }

// Data is the server's --data.
func (s *Server) Data() string { return filepath.Join(s.dir, "data") }

// PID is the process that was started last.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Start returns when the server answers.
func (s *Server) Start(ctx context.Context) error {
	o := s.options
	s.cmd = exec.Command(o.Binary, append([]string{"server", "--data", s.Data(), "--socket", s.socket(),
		"--images", o.Images, "--runsc", o.Runsc, "--pool", s.pool.String()}, o.Flags...)...)
	s.cmd.Stderr = o.Log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt is for who started it
	if err := s.cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	s.exited = exited
	go func() { _ = s.cmd.Wait(); close(exited) }() // Signal waits for it
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		if _, err := s.Client.Version(ctx); err == nil {
			return nil
		}
		select {
		case <-s.exited:
			return fmt.Errorf("the server has ended: %s", s.cmd.ProcessState)
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), s.Signal(syscall.SIGKILL))
		case <-ticker.C:
		}
	}
}

// Signal sends the server what ends it, and waits until it has ended.
func (s *Server) Signal(sig syscall.Signal) error {
	err := s.cmd.Process.Signal(sig)
	<-s.exited
	return err
}

// Remove forgets a server that has ended, or was never started.
func (s *Server) Remove() error {
	s.Client.Close()
	freepool.Release(s.pool)
	return os.RemoveAll(s.dir)
}
