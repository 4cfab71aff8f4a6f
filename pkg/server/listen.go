package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/innerdock/innerdock"
)

// drainTime is what requests under way get to finish when the server stops.
const drainTime = 10 * time.Second

// Listeners says where a server listens.
type Listeners struct {
	Socket  string   // path of the Unix socket; "" for none
	TCP     []string // host:port each
	TLSCert string   // PEM files for TCP; both or neither
	TLSKey  string
}

// Serve listens and answers until ctx is done; then it stops listening and lets
// requests under way finish: ten seconds, or until abort is done. It calls
// ready, if there is one, once it listens. Sandboxes live on.
func (s *Server) Serve(ctx, abort context.Context, where Listeners, ready func()) error {
	faces, err := s.listen(ctx, where)
	if err != nil {
		return err
	}
	if where.Socket != "" {
		if s.sockets, err = s.openSockets(ctx, where.Socket); err != nil {
			closeFaces(faces)
			return err
		}
	}
	if ready != nil {
		ready()
	}
	failed := make(chan error, len(faces))
	var serving sync.WaitGroup
	for _, f := range faces {
		s.log.Info("listening", "address", f.address)
		serving.Go(func() {
			if err := f.http.Serve(f.listener); !errors.Is(err, http.ErrServerClosed) {
				failed <- err
			}
		})
	}
	select {
	case err = <-failed:
		err = innerdock.Internal(err, "accepting connections")
	case <-ctx.Done():
	}
	s.stop(abort, faces)
	serving.Wait()
	return err
}

// stop drains all faces at the same time and then cuts what is left.
func (s *Server) stop(abort context.Context, faces []face) {
	s.log.Info("stopping: finishing requests, sandboxes live on")
	s.drain()
	limit, cancel := context.WithTimeout(abort, drainTime)
	defer cancel()
	s.sockets.stopListening()
	var stopping sync.WaitGroup
	stopping.Go(func() { s.tunnels.drain(limit) })
	for _, f := range faces {
		stopping.Go(func() {
			if f.http.Shutdown(limit) != nil {
				s.log.Warn("requests were cut off", "address", f.address)
			}
			_ = f.http.Close()
			f.release()
		})
	}
	stopping.Wait()
	s.sockets.close()
}

// face is one listener and the HTTP server on it.
type face struct {
	address  string
	listener net.Listener
	http     *http.Server
	release  func() // removes what listening left behind
}

func closeFaces(faces []face) {
	for _, f := range faces {
		_ = f.listener.Close()
		f.release()
	}
}

func (s *Server) listen(ctx context.Context, where Listeners) (faces []face, err error) {
	defer func() {
		if err != nil {
			closeFaces(faces)
		}
	}()
	certificate, known, err := loadCertificate(where)
	if err != nil {
		return nil, err
	}
	if where.Socket != "" {
		listener, err := listenSocket(ctx, where.Socket)
		if err != nil {
			return faces, err
		}
		faces = append(faces, face{where.Socket, listener, s.httpServer(s.Local()), func() { _ = os.Remove(where.Socket) }})
	}
	for _, address := range where.TCP {
		listener, err := listenTCP(ctx, address, certificate)
		if err != nil {
			return faces, err
		}
		faces = append(faces, face{listener.Addr().String(), listener, s.httpServer(s.Remote(known)), func() {}})
	}
	if len(faces) == 0 {
		return nil, innerdock.Errorf(innerdock.CodeInvalid, "nowhere to listen: give a socket or an address")
	}
	return faces, nil
}

func (s *Server) httpServer(handler http.Handler) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxHeader,
		Protocols:         protocols,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
}

// listenSocket listens on a Unix socket that its owner and group may use. The
// file appears complete: it is made under another name first. A file that
// nobody listens on is a dead server's and is replaced.
func listenSocket(ctx context.Context, path string) (net.Listener, error) {
	doing := "listening on " + path
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, innerdock.Internal(err, doing)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSocket == 0 {
		return nil, innerdock.Errorf(innerdock.CodeConflict, "%s exists and is not a socket; remove it or choose another --socket", path)
	}
	dialer := net.Dialer{Timeout: 2 * time.Second}
	if conn, err := dialer.DialContext(ctx, "unix", path); err == nil {
		_ = conn.Close()
		return nil, innerdock.Errorf(innerdock.CodeConflict,
			"a server is already listening on %s; stop it, or choose another --socket and --data", path)
	}
	making := fmt.Sprintf("%s.%d", path, os.Getpid())
	_ = os.Remove(making)
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: making, Net: "unix"})
	if err != nil {
		return nil, innerdock.Internal(err, doing)
	}
	listener.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(making, 0o660), os.Rename(making, path)); err != nil {
		_ = listener.Close()
		_ = os.Remove(making)
		return nil, innerdock.Internal(err, doing)
	}
	return listener, nil
}

// listenTCP refuses to send keys over a network in the clear.
func listenTCP(ctx context.Context, address string, certificate *tls.Certificate) (net.Listener, error) {
	resolved, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return nil, innerdock.Errorf(innerdock.CodeInvalid, "--listen %s: %w; write it as host:port", address, err)
	}
	if !resolved.IP.IsLoopback() && certificate == nil {
		return nil, innerdock.Errorf(innerdock.CodeInvalid,
			"--listen %s is not a loopback address: give --tls-cert and --tls-key, or listen on 127.0.0.1", address)
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", resolved.String())
	if err != nil {
		return nil, innerdock.Errorf(innerdock.CodeConflict, "cannot listen on %s: %w", address, err)
	}
	if certificate == nil {
		return listener, nil
	}
	return tls.NewListener(listener, &tls.Config{
		Certificates: []tls.Certificate{*certificate},
		MinVersion:   tls.VersionTLS12,
		NextProtos:   []string{"h2", "http/1.1"},
	}), nil
}

// loadCertificate reads the key pair, and says which host names are in it.
func loadCertificate(where Listeners) (*tls.Certificate, func(string) bool, error) {
	if where.TLSCert == "" && where.TLSKey == "" {
		return nil, func(string) bool { return false }, nil
	}
	pair, err := tls.LoadX509KeyPair(where.TLSCert, where.TLSKey)
	if err != nil {
		return nil, nil, innerdock.Errorf(innerdock.CodeInvalid, "--tls-cert and --tls-key: %w", err)
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return nil, nil, innerdock.Errorf(innerdock.CodeInvalid, "--tls-cert: %w", err)
	}
	return &pair, func(host string) bool { return leaf.VerifyHostname(host) == nil }, nil
}
