package innerdock

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// longPoll is how long one request of a wait lasts.
const longPoll = 50 * time.Second

// unmakeTime is how long a client that gave up has to end what it was not told of.
const unmakeTime = 10 * time.Second

// CreateSandbox returns a running sandbox; its Docker may still be starting. When ctx
// ends before, there is none.
func (c *Client) CreateSandbox(ctx context.Context, spec SandboxSpec) (Sandbox, error) {
	return makeSandboxes[Sandbox](ctx, c, call{method: http.MethodPost, path: "/v1/sandboxes", content: spec})
}

// makeSandboxes performs a call that makes sandboxes. The server ends those of a client
// that has left; one that leaves while the reply is on its way ends them itself.
func makeSandboxes[T any](ctx context.Context, c *Client, call call) (T, error) {
	call.id = strings.ToLower(rand.Text())
	made, err := fetch[T](ctx, c, call)
	if err != nil && ctx.Err() != nil {
		err = errors.Join(err, c.unmake(ctx, call.id))
	}
	return made, err
}

// unmake ends the sandboxes that a request made.
func (c *Client) unmake(ctx context.Context, request string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unmakeTime)
	defer cancel()
	sandboxes, err := c.Sandboxes(ctx, false)
	for _, sandbox := range sandboxes {
		if sandbox.RequestID != request {
			continue
		}
		if _, failure := c.TerminateWithin(ctx, sandbox.ID, 0); CodeOf(failure) != CodeNotFound {
			err = errors.Join(err, failure)
		}
	}
	return err
}

// Sandboxes lists the live sandboxes, or with all those that have ended too.
func (c *Client) Sandboxes(ctx context.Context, all bool) ([]Sandbox, error) {
	var query url.Values
	if all {
		query = url.Values{"all": {"true"}}
	}
	list, err := get[struct{ Sandboxes []Sandbox }](ctx, c, "/v1/sandboxes", query)
	return list.Sandboxes, err
}

// Sandbox returns a sandbox by its ID, or by its name if it lives.
func (c *Client) Sandbox(ctx context.Context, idOrName string) (Sandbox, error) {
	return get[Sandbox](ctx, c, sandboxPath(idOrName, ""), nil)
}

// Terminate ends a sandbox; ending it twice is fine.
func (c *Client) Terminate(ctx context.Context, idOrName string) (Sandbox, error) {
	return c.TerminateWithin(ctx, idOrName, DefaultGrace)
}

// TerminateWithin ends a sandbox whose processes and containers have so long,
// MaxGrace at most, to end by themselves; 0 kills them at once.
func (c *Client) TerminateWithin(ctx context.Context, idOrName string, grace time.Duration) (Sandbox, error) {
	var query url.Values
	if grace != DefaultGrace {
		query = url.Values{"grace": {seconds(grace)}}
	}
	return fetch[Sandbox](ctx, c, call{method: http.MethodDelete, path: sandboxPath(idOrName, ""), query: query})
}

// Pause has a sandbox stand still: it takes no CPU, and keeps its memory, until
// Resume. Pausing it twice is fine. Meanwhile whatever needs the sandbox itself
// is CodeConflict; what was under way goes on after.
func (c *Client) Pause(ctx context.Context, idOrName string) (Sandbox, error) {
	return fetch[Sandbox](ctx, c, call{method: http.MethodPost, path: sandboxPath(idOrName, "/pause")})
}

// PauseToDisk is Pause for a sandbox that takes no memory either: that goes to the
// disk, and Resume brings it back. Connections to the sandbox end.
func (c *Client) PauseToDisk(ctx context.Context, idOrName string) (Sandbox, error) {
	query := url.Values{"persist": {"true"}}
	return fetch[Sandbox](ctx, c, call{method: http.MethodPost, path: sandboxPath(idOrName, "/pause"), query: query})
}

// Resume has a paused sandbox go on; one that is not paused just does.
func (c *Client) Resume(ctx context.Context, idOrName string) (Sandbox, error) {
	return fetch[Sandbox](ctx, c, call{method: http.MethodPost, path: sandboxPath(idOrName, "/resume")})
}

// Wait returns the sandbox when it has ended.
func (c *Client) Wait(ctx context.Context, idOrName string) (Sandbox, error) {
	query := url.Values{"timeout": {seconds(longPoll)}}
	for {
		sandbox, err := get[Sandbox](ctx, c, sandboxPath(idOrName, "/wait"), query)
		if err != nil || sandbox.State.Ended() {
			return sandbox, err
		}
	}
}

// Logs returns the server's own log of a sandbox's start and life.
func (c *Client) Logs(ctx context.Context, idOrName string) ([]byte, error) {
	return c.text(ctx, sandboxPath(idOrName, "/logs"), nil)
}

// Docker returns the state of Docker in a sandbox.
func (c *Client) Docker(ctx context.Context, idOrName string) (DockerStatus, error) {
	return get[DockerStatus](ctx, c, sandboxPath(idOrName, "/docker"), nil)
}

// WaitDocker waits until Docker is ready. A Docker that has failed, or that the
// sandbox does not have, is an error with its code and reason.
func (c *Client) WaitDocker(ctx context.Context, idOrName string) (DockerStatus, error) {
	query := url.Values{"wait": {seconds(longPoll)}}
	for {
		status, err := get[DockerStatus](ctx, c, sandboxPath(idOrName, "/docker"), query)
		if err != nil {
			return status, err
		}
		switch status.State {
		case DockerReady:
			return status, nil
		case DockerFailed:
			return status, dockerError(status, CodeDockerFailed, "Docker failed in this sandbox; its log: `innerdock logs --docker`")
		case DockerDisabled:
			return status, dockerError(status, CodeDockerDisabled, "this sandbox was created without Docker; create one with docker enabled")
		}
	}
}

func dockerError(status DockerStatus, code Code, reason string) error {
	if status.Code != "" {
		code = status.Code
	}
	if status.Reason != "" {
		reason = status.Reason
	}
	return Errorf(code, "%s", reason)
}

// DockerLogs returns what dockerd in a sandbox logged: the last 1 MiB.
func (c *Client) DockerLogs(ctx context.Context, idOrName string) ([]byte, error) {
	return c.text(ctx, sandboxPath(idOrName, "/docker/logs"), nil)
}
