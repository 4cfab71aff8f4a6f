package worker

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/agent/wire"
)

// maxReply caps a JSON reply of an agent, which is hostile like everything
// else inside a sandbox.
const maxReply = 1 << 20

// shutdownTimeout is what an agent has to say that it will end everything.
const shutdownTimeout = time.Second

// agentClient speaks to one sandbox's agent.
type agentClient struct {
	http *http.Client
}

// post sends body as JSON. The caller closes the reply, whose status is 2xx.
func (a agentClient) post(ctx context.Context, path string, body any, header http.Header) (*http.Response, error) {
	content, err := json.Marshal(body)
	if err != nil {
		return nil, innerdock.Internal(err, "encoding a request to the agent")
	}
	return a.do(ctx, http.MethodPost, path, bytes.NewReader(content), header)
}

func (a agentClient) do(ctx context.Context, method, path string, body io.Reader, header http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://agent"+path, body)
	if err != nil {
		return nil, innerdock.Internal(err, "making a request to the agent")
	}
	for name, values := range header {
		req.Header[name] = values
	}
	resp, err := a.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, innerdock.Errorf(innerdock.CodeTimeout, "the sandbox's agent did not answer in time")
		}
		return nil, innerdock.Errorf(innerdock.CodeUnavailable, "the sandbox's agent cannot be reached: %w", err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer func() { _ = resp.Body.Close() }()
	failure := &innerdock.Error{}
	reply, _ := io.ReadAll(io.LimitReader(resp.Body, maxReply))
	if json.Unmarshal(reply, failure) != nil || failure.Code == "" {
		return nil, innerdock.Errorf(innerdock.CodeUnavailable, "the sandbox's agent answered %s", resp.Status)
	}
	return nil, failure
}

// configure tells the agent what its sandbox is called and where it is.
func (a agentClient) configure(ctx context.Context, c wire.Configuration) error {
	resp, err := a.post(ctx, wire.PathConfigure, c, nil)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// freeze prepares the agent for a checkpoint.
func (a agentClient) freeze(ctx context.Context) error {
	resp, err := a.post(ctx, wire.PathFreeze, nil, nil)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// startDocker starts dockerd and hands each event to see, until the start is
// over or ctx is done.
func (a agentClient) startDocker(ctx context.Context, start wire.DockerStart, see func(wire.DockerEvent)) error {
	resp, err := a.post(ctx, wire.PathDockerStart, start, nil)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, wire.MaxLine)
	for lines.Scan() {
		var event wire.DockerEvent
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			return innerdock.Errorf(innerdock.CodeDockerFailed, "the sandbox's agent sent an unreadable event: %w", err)
		}
		see(event)
	}
	return lines.Err()
}

// shutdown asks the agent to end everything and then itself.
func (a agentClient) shutdown(ctx context.Context, grace time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, shutdownTimeout)
	defer cancel()
	resp, err := a.post(ctx, wire.PathShutdown, wire.Shutdown{Grace: grace.Seconds()}, nil)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// keepImages stops Docker and has its images become part of the root.
func (a agentClient) keepImages(ctx context.Context) error {
	resp, err := a.post(ctx, wire.PathDockerKeep, nil, nil)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// dockerReport waits until Docker is not as it was last, for at most a minute,
// and returns how it is.
func (a agentClient) dockerReport(ctx context.Context, last innerdock.DockerStatus) (wire.DockerReport, error) {
	var report wire.DockerReport
	query := url.Values{"not": {string(last.State)}, "restarts": {strconv.Itoa(last.Restarts)}, "wait": {"60"}}
	resp, err := a.do(ctx, http.MethodGet, wire.PathDockerState+"?"+query.Encode(), nil, nil)
	if err != nil {
		return report, err
	}
	defer func() { _ = resp.Body.Close() }()
	err = json.NewDecoder(io.LimitReader(resp.Body, maxReply)).Decode(&report)
	return report, err
}

// execute runs a process to its end and hands its output over as it comes; it
// returns the exit code.
func (a agentClient) execute(ctx context.Context, spec innerdock.ProcessSpec, stdout, stderr func([]byte)) (int, error) {
	return a.follow(ctx, spec, func(int) {}, stdout, stderr)
}

// follow is execute of a process whose ID is told when it has started.
func (a agentClient) follow(ctx context.Context, spec innerdock.ProcessSpec, started func(pid int), stdout, stderr func([]byte)) (int, error) {
	resp, err := a.post(ctx, "/processes", spec, http.Header{"Accept": {"text/event-stream"}})
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	for event, err := range innerdock.Events(resp.Body) {
		if err != nil {
			return 0, innerdock.Errorf(innerdock.CodeUnavailable, "the output of %q broke off: %w", spec.Args[0], err)
		}
		var content innerdock.OutputEvent
		if err := json.Unmarshal(event.Data, &content); err != nil {
			return 0, innerdock.Errorf(innerdock.CodeUnavailable, "the output of %q is unreadable: %w", spec.Args[0], err)
		}
		switch {
		case event.Name == "started" && content.Process != nil && started != nil:
			started(content.Process.PID)
			started = nil // an agent may say it once
		case event.Name == "exit" && content.Process != nil && content.Process.ExitCode != nil:
			return *content.Process.ExitCode, nil
		case event.Name == "stdout":
			stdout(content.Data)
		case event.Name == "stderr":
			stderr(content.Data)
		}
	}
	return 0, innerdock.Errorf(innerdock.CodeUnavailable, "the output of %q ended before it did", spec.Args[0])
}
