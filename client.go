package innerdock

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// DefaultHost is where a server listens unless it was told otherwise.
const DefaultHost = "unix:///run/innerdock/innerdock.sock"

// Caps of what a server may send.
const (
	maxResponse      = 32 << 20 // bytes of a JSON reply
	maxResponseError = 1 << 20
)

// Client speaks to a server. Its methods return *Error: the server's own, or
// CodeUnavailable when there is no server to be reached. They may be called at
// the same time.
type Client struct {
	host   string // as given
	socket string // of unix:
	base   string // scheme://authority[/prefix]
	key    string
	http   *http.Client
}

// New makes a client of the server at host, unix:///path or http(s)://name:port;
// "" is DefaultHost. The key is needed for http and https.
func New(host, key string) (*Client, error) {
	if host == "" {
		host = DefaultHost
	}
	where, err := url.Parse(host)
	if err != nil {
		return nil, badHost(host)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 16, IdleConnTimeout: 30 * time.Second, ForceAttemptHTTP2: true}
	c := &Client{host: host, key: key, http: &http.Client{Transport: transport, CheckRedirect: noRedirect}}
	switch {
	case where.Scheme == "unix" && where.Host == "" && where.Path != "":
		c.base, c.socket = "http://localhost", where.Path
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			var dialer net.Dialer
			return dialer.DialContext(ctx, "unix", where.Path)
		}
	case (where.Scheme == "http" || where.Scheme == "https") && where.Host != "" && where.User == nil:
		c.base = where.Scheme + "://" + where.Host + strings.TrimRight(where.EscapedPath(), "/")
	default:
		return nil, badHost(host)
	}
	return c, nil
}

func badHost(host string) error {
	return Errorf(CodeInvalid, "%q is no server: write unix:///path/to/socket, http://127.0.0.1:port or https://name:port", host)
}

// noRedirect keeps keys from following a redirect.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// Close releases idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Version asks the server for its versions.
func (c *Client) Version(ctx context.Context) (VersionInfo, error) {
	return get[VersionInfo](ctx, c, "/v1/version", nil)
}

// call is one request. Body is sent as it is; content is sent as JSON instead.
type call struct {
	method   string
	path     string
	query    url.Values
	content  any
	body     io.Reader
	bodyType string // Content-Type of body; "": application/octet-stream
	accept   string
	id       string // the request's; "": the server's choice
}

// send performs a call and returns a reply whose status is 2xx, for the caller to close.
func (c *Client) send(ctx context.Context, call call) (*http.Response, error) {
	target := c.base + call.path
	if len(call.query) > 0 {
		target += "?" + call.query.Encode()
	}
	contentType := cmp.Or(call.bodyType, "application/octet-stream")
	if call.content != nil {
		encoded, err := json.Marshal(call.content)
		if err != nil {
			return nil, Errorf(CodeInvalid, "encoding the request: %w", err)
		}
		call.body, contentType = bytes.NewReader(encoded), "application/json"
	}
	request, err := http.NewRequestWithContext(ctx, call.method, target, call.body)
	if err != nil {
		return nil, Errorf(CodeInvalid, "making the request: %w", err)
	}
	if call.body != nil {
		request.Header.Set("Content-Type", contentType)
	}
	if call.accept != "" {
		request.Header.Set("Accept", call.accept)
	}
	if call.id != "" {
		request.Header.Set(RequestIDHeader, call.id)
	}
	if c.key != "" {
		request.Header.Set("Authorization", "Bearer "+c.key)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	if response.StatusCode/100 == 2 {
		return response, nil
	}
	defer func() { _ = response.Body.Close() }()
	return nil, c.errorIn(response)
}

// unreachable says why there was no reply, and how to get one.
func (c *Client) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var dial *net.OpError
	if !errors.As(err, &dial) || dial.Op != "dial" {
		return Errorf(CodeUnavailable, "the connection to the innerdock server at %s broke: %w", c.host, err)
	}
	next := "is INNERDOCK_HOST right?"
	if strings.HasPrefix(c.host, "unix:") {
		next = "start it with `sudo innerdock server`, or in a checkout with `make up`"
	}
	if strings.Contains(err.Error(), "permission denied") {
		next = "your user may not open the socket: use sudo"
	}
	return Errorf(CodeUnavailable, "the innerdock server is not running at %s (%w); %s", c.host, dial.Err, next)
}

// errorIn is the Error in a reply; something else that answered is unavailable.
func (c *Client) errorIn(response *http.Response) error {
	content, err := io.ReadAll(io.LimitReader(response.Body, maxResponseError))
	failure := &Error{}
	if err != nil || json.Unmarshal(content, failure) != nil || failure.Code == "" {
		return Errorf(CodeUnavailable, "%s answered %q and no innerdock error; is it an innerdock server?", c.host, response.Status)
	}
	return failure
}

// fetch performs a call and decodes its JSON reply.
func fetch[T any](ctx context.Context, c *Client, call call) (T, error) {
	var value T
	response, err := c.send(ctx, call)
	if err != nil {
		return value, err
	}
	defer func() { _ = response.Body.Close() }()
	content, err := io.ReadAll(io.LimitReader(response.Body, maxResponse))
	if err != nil {
		return value, c.unreachable(ctx, err)
	}
	if err := json.Unmarshal(content, &value); err != nil {
		return value, Errorf(CodeUnavailable, "the server's answer cannot be read: %w", err)
	}
	return value, nil
}

func get[T any](ctx context.Context, c *Client, path string, query url.Values) (T, error) {
	return fetch[T](ctx, c, call{method: http.MethodGet, path: path, query: query})
}

// do performs a call that has no reply.
func (c *Client) do(ctx context.Context, call call) error {
	response, err := c.send(ctx, call)
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, maxResponseError)) // to keep the connection
	return response.Body.Close()
}

// text performs a GET and returns the body, up to the cap of a reply.
func (c *Client) text(ctx context.Context, path string, query url.Values) ([]byte, error) {
	response, err := c.send(ctx, call{method: http.MethodGet, path: path, query: query})
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	content, err := io.ReadAll(io.LimitReader(response.Body, maxResponse))
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	return content, nil
}

// sandboxPath is the path of something of a sandbox.
func sandboxPath(idOrName, rest string) string {
	return "/v1/sandboxes/" + url.PathEscape(idOrName) + rest
}

func processPath(idOrName string, pid int, rest string) string {
	return sandboxPath(idOrName, fmt.Sprintf("/processes/%d%s", pid, rest))
}

func seconds(d time.Duration) string {
	return strconv.FormatFloat(d.Seconds(), 'f', -1, 64)
}
