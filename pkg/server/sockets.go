package server

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/forward"
)

// maxSocketPath is what Linux allows for the name of a Unix socket.
const maxSocketPath = 107

// sockets are the Unix sockets beside the server's own, one for each sandbox
// with Docker of the tenant that the server's socket speaks for: docker/ID.sock.
// Whoever may open the server's may open them.
type sockets struct {
	server *Server
	dir    string
	group  int // of the server's socket
	ctx    context.Context
	cut    context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	open   map[string]net.Listener // by path
	closed bool
}

// openSockets makes the directory, removes what dead servers left in it, and
// listens for every sandbox that lives. path is the server's own socket.
func (s *Server) openSockets(ctx context.Context, path string) (*sockets, error) {
	const doing = "making the sockets of the sandboxes' Docker"
	k := &sockets{server: s, dir: filepath.Join(filepath.Dir(path), "docker"), open: map[string]net.Listener{}}
	k.ctx, k.cut = context.WithCancel(context.WithoutCancel(ctx))
	if err := os.MkdirAll(k.dir, 0o755); err != nil {
		return nil, innerdock.Internal(err, doing)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, innerdock.Internal(err, doing)
	}
	k.group = int(info.Sys().(*syscall.Stat_t).Gid)
	if err := k.removeDead(ctx); err != nil {
		return nil, innerdock.Internal(err, doing)
	}
	live, err := s.backend.Sandboxes(ctx, innerdock.DefaultTenant, false)
	if err != nil {
		return nil, err
	}
	for _, sandbox := range live {
		k.add(sandbox)
	}
	return k, nil
}

// removeDead removes sockets that nobody listens on.
func (k *sockets) removeDead(ctx context.Context) error {
	left, err := filepath.Glob(filepath.Join(k.dir, "*.sock*"))
	if err != nil {
		return err
	}
	dialer := net.Dialer{Timeout: time.Second}
	for _, path := range left {
		conn, err := dialer.DialContext(ctx, "unix", path)
		if err == nil {
			_ = conn.Close()
			continue
		}
		if errors.Is(err, syscall.ECONNREFUSED) {
			if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// add listens for a sandbox until it has ended. A sandbox is none the worse for
// a socket that cannot be made: the log says why.
func (k *sockets) add(sandbox innerdock.Sandbox) {
	if k == nil || sandbox.Docker.State == innerdock.DockerDisabled || sandbox.State.Ended() {
		return
	}
	path := filepath.Join(k.dir, sandbox.ID+".sock")
	listener, err := k.listen(path)
	if err != nil {
		k.server.log.Warn("the sandbox's Docker gets no socket", "container_id", sandbox.ID, "error", err)
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		k.remove(path, listener)
		return
	}
	k.open[path] = listener
	k.wg.Go(func() {
		forward.Docker(k.ctx, listener, func(ctx context.Context) (net.Conn, error) {
			return k.server.dialDocker(ctx, innerdock.DefaultTenant, sandbox.ID)
		})
	})
	k.wg.Go(func() { k.await(sandbox.ID, path) })
}

func (k *sockets) listen(path string) (net.Listener, error) {
	if len(path) > maxSocketPath-len(".0123456") { // the name under which it is made
		return nil, innerdock.Errorf(innerdock.CodeInvalid, "%s is too long for a socket; choose a shorter --socket", path)
	}
	listener, err := listenSocket(k.ctx, path)
	if err != nil {
		return nil, err
	}
	if err := os.Chown(path, -1, k.group); err != nil {
		k.remove(path, listener)
		return nil, innerdock.Internal(err, "giving the socket to the group of the server's")
	}
	return listener, nil
}

func (k *sockets) remove(path string, listener net.Listener) {
	_ = listener.Close()
	_ = os.Remove(path)
}

// await closes a socket when its sandbox has ended.
func (k *sockets) await(id, path string) {
	for k.ctx.Err() == nil {
		sandbox, err := k.server.backend.Wait(k.ctx, innerdock.DefaultTenant, id)
		if err != nil || sandbox.State.Ended() {
			break
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if listener, open := k.open[path]; open {
		k.remove(path, listener)
		delete(k.open, path)
	}
}

// stopListening removes all sockets; the connections go on.
func (k *sockets) stopListening() {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	for path, listener := range k.open {
		k.remove(path, listener)
		delete(k.open, path)
	}
}

// close cuts the connections and waits.
func (k *sockets) close() {
	if k == nil {
		return
	}
	k.stopListening()
	k.cut()
	k.wg.Wait()
	_ = os.Remove(k.dir) // unless another server has sockets in it
}
