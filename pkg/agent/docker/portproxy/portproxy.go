// Package portproxy is what dockerd starts for each published port, in the place
// of docker-proxy.
//
// Docker's own accepts connections as soon as a container is started, and cuts
// them until something in it listens. Natively a program listens before a client
// has asked for its port; in gVisor it starts more slowly. A client that takes a
// connection that was accepted for one that is served, as testcontainers does with
// Ryuk's, would be lost for good. Here connections of the first seconds wait.
package portproxy

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// Path is what dockerd is told to start: a link to the agent's program, which
// looks at the name that it was started by.
const Path = "/run/docker/innerdock-docker-proxy"

const (
	original    = "docker-proxy"   // for what is not TCP
	patience    = 10 * time.Second // from the start, for a container to listen
	firstPause  = 2 * time.Millisecond
	lastPause   = 50 * time.Millisecond
	statusFile  = 3 // where dockerd reads how the start went
	listenFile  = 4 // a socket that is bound already, since Docker 28
	acceptPause = 50 * time.Millisecond
)

// Main is the program, with an environment for the original. It returns when ctx
// is done, which dockerd asks for by a signal.
func Main(ctx context.Context, args, env []string) error {
	status := os.NewFile(statusFile, "status")
	p, listener, err := start(args, env)
	if err != nil {
		_, _ = fmt.Fprintf(status, "1\n%s", err)
		return err
	}
	_, err = io.WriteString(status, "0\n")
	if err := errors.Join(err, status.Close()); err != nil {
		return err
	}
	p.serve(ctx, listener)
	return nil
}

// start reads the arguments that dockerd gives and listens. It does not return for
// what the original is needed for.
func start(args, env []string) (*proxy, net.Listener, error) {
	flags := flag.NewFlagSet(original, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	protocol := flags.String("proto", "tcp", "")
	var outside, inside netip.Addr
	flags.TextVar(&outside, "host-ip", netip.IPv4Unspecified(), "")
	flags.TextVar(&inside, "container-ip", netip.IPv4Unspecified(), "")
	outsidePort := flags.Uint("host-port", 0, "")
	insidePort := flags.Uint("container-port", 0, "")
	given := flags.Bool("use-listen-fd", false, "")
	if err := flags.Parse(args); err != nil {
		return nil, nil, err
	}
	if *protocol != "tcp" {
		path, err := exec.LookPath(original)
		if err == nil {
			err = syscall.Exec(path, append([]string{original}, args...), env)
		}
		return nil, nil, fmt.Errorf("starting %s for %s: %w", original, *protocol, err)
	}
	listener, err := listen(netip.AddrPortFrom(outside, uint16(*outsidePort)), *given)
	return &proxy{backend: netip.AddrPortFrom(inside, uint16(*insidePort)).String(), until: time.Now().Add(patience)}, listener, err
}

func listen(address netip.AddrPort, given bool) (net.Listener, error) {
	if given {
		file := os.NewFile(listenFile, "listener")
		defer file.Close()
		return net.FileListener(file)
	}
	network := "tcp4"
	if address.Addr().Is6() {
		network = "tcp6"
	}
	return net.Listen(network, address.String())
}

// proxy passes connections to the container's address.
type proxy struct {
	backend string
	until   time.Time // connections wait for somebody to listen
}

// serve passes the connections that listener accepts until ctx is done.
func (p *proxy) serve(ctx context.Context, listener net.Listener) {
	var serving sync.WaitGroup
	defer serving.Wait()
	defer context.AfterFunc(ctx, func() { listener.Close() })()
	for {
		conn, err := listener.Accept()
		if err == nil {
			serving.Go(func() { p.pass(ctx, conn.(*net.TCPConn)) })
			continue
		}
		select { // out of file descriptors: nothing tells when there are some
		case <-time.After(acceptPause):
		case <-ctx.Done():
			return
		}
	}
}

// pass joins conn with the container until both directions have ended.
func (p *proxy) pass(ctx context.Context, conn *net.TCPConn) {
	defer conn.Close()
	inside, err := p.dial(ctx)
	if err != nil {
		return // as Docker's own does: the client sees its connection end
	}
	defer inside.Close()
	defer context.AfterFunc(ctx, func() { conn.Close(); inside.Close() })()
	var back sync.WaitGroup
	back.Go(func() { carry(conn, inside) })
	carry(inside, conn)
	back.Wait()
}

// dial connects to the container. While it is new, nobody may listen yet.
func (p *proxy) dial(ctx context.Context) (*net.TCPConn, error) {
	var dialer net.Dialer
	for wait := firstPause; ; wait = min(2*wait, lastPause) {
		conn, err := dialer.DialContext(ctx, "tcp", p.backend)
		if err == nil {
			return conn.(*net.TCPConn), nil
		}
		if !errors.Is(err, syscall.ECONNREFUSED) || time.Now().After(p.until) {
			return nil, err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// carry copies one direction and passes on its end.
func carry(to, from *net.TCPConn) {
	_, _ = io.Copy(to, from)
	_ = from.CloseRead()
	_ = to.CloseWrite()
}
