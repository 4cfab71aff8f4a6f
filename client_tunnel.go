package innerdock

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/innerdock/innerdock/pkg/tunnel"
)

// PublishedPorts are the ports that the containers in a sandbox publish.
type PublishedPorts struct {
	Version int64 `json:"version"`         // grows with every change
	Ports   []int `json:"ports,omitempty"` // TCP
	UDP     []int `json:"udp,omitempty"`   // for which there is no tunnel
}

// maxPublished caps what a sandbox may say of its published ports, in bytes.
const maxPublished = 1 << 20

// dialTimeout bounds the connection to the server, as http.DefaultTransport does.
const dialTimeout = 30 * time.Second

// DialDocker connects to the Docker API in a sandbox, once Docker is ready. The
// connection also has CloseWrite, as a socket does.
func (c *Client) DialDocker(ctx context.Context, idOrName string) (net.Conn, error) {
	return c.dialTunnel(ctx, sandboxPath(idOrName, "/docker/connect"))
}

// DialPort connects to a TCP port of a sandbox: to what listens on all of its
// addresses or on its 127.0.0.1. The connection also has CloseWrite.
func (c *Client) DialPort(ctx context.Context, idOrName string, port int) (net.Conn, error) {
	return c.dialTunnel(ctx, sandboxPath(idOrName, fmt.Sprintf("/ports/%d/connect", port)))
}

// FollowPorts calls act with the published ports of a sandbox, at once and after
// every change, until the connection breaks or ctx is done. From the first call
// on, Docker holds back the answer to a container's start until act has returned
// with its ports, for some seconds at the most.
func (c *Client) FollowPorts(ctx context.Context, idOrName string, act func(PublishedPorts)) error {
	conn, err := c.dialTunnel(ctx, sandboxPath(idOrName, "/docker/ports"))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	limited := &capped{conn: conn}
	lines, answers := json.NewDecoder(limited), json.NewEncoder(conn)
	for {
		limited.left = maxPublished
		var published PublishedPorts
		if err := lines.Decode(&published); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return Errorf(CodeUnavailable, "the news of published ports broke off: %w", err)
		}
		act(published)
		if err := answers.Encode(PublishedPorts{Version: published.Version}); err != nil {
			return Errorf(CodeUnavailable, "the news of published ports broke off: %w", err)
		}
	}
}

// capped ends with an error when more is read than is left.
type capped struct {
	conn net.Conn
	left int
}

func (c *capped) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, Errorf(CodeTooLarge, "a sandbox said more than %d bytes of its ports", maxPublished)
	}
	n, err := c.conn.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

// dialTunnel asks the server for a tunnel, on a connection of its own.
func (c *Client) dialTunnel(ctx context.Context, path string) (*tunnel.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	carrier, err := c.upgrade(ctx, conn, path)
	if err != nil || !stop() {
		_ = conn.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, err
	}
	return tunnel.New(carrier), nil
}

// upgrade makes a tunnel of a connection to the server.
func (c *Client) upgrade(ctx context.Context, conn net.Conn, path string) (net.Conn, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+path, nil)
	if err != nil {
		return nil, Errorf(CodeInvalid, "making the request: %w", err)
	}
	if c.key != "" {
		request.Header.Set("Authorization", "Bearer "+c.key)
	}
	carrier, response, err := tunnel.Request(conn, request)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	if carrier == nil {
		defer func() { _ = response.Body.Close() }()
		return nil, c.errorIn(response)
	}
	return carrier, nil
}

// dial connects to the server, for HTTP/1.1.
func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	dialer := &net.Dialer{Timeout: dialTimeout}
	if c.socket != "" {
		return dialer.DialContext(ctx, "unix", c.socket)
	}
	where, err := url.Parse(c.base)
	if err != nil {
		return nil, err
	}
	address := where.Host
	if where.Port() == "" {
		address = net.JoinHostPort(where.Hostname(), where.Scheme)
	}
	if where.Scheme == "http" {
		return dialer.DialContext(ctx, "tcp", address)
	}
	secure := tls.Dialer{NetDialer: dialer, Config: &tls.Config{NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS12}}
	return secure.DialContext(ctx, "tcp", address)
}
