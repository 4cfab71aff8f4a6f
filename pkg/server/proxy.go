package server

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/innerdock/innerdock"
)

// What comes from an agent comes from inside a sandbox: from anybody.
const (
	maxReplyJSON    = 16 << 20 // bytes of a JSON reply
	maxReplyError   = 64 << 10 // bytes of an error
	maxReplyHeaders = 16 << 10
	copyBuffer      = 32 << 10
)

func (s *Server) addProxied() {
	for _, p := range proxiedOperations() {
		s.handleRaw(s.describe(p), func(w http.ResponseWriter, r *http.Request) { s.proxy(p, w, r) })
	}
}

// describe is p for the OpenAPI document.
func (s *Server) describe(p proxied) huma.Operation {
	parameters := s.parameters(idParameter)
	if strings.Contains(p.path, "{pid}") {
		parameters = s.parameters(idParameter, pidParameter)
	}
	op := huma.Operation{
		OperationID: p.name, Method: p.method, Path: "/v1/sandboxes/{id}" + p.path, Tags: []string{p.tag},
		Summary: p.summary, Description: p.description, Parameters: append(parameters, p.query...),
		Responses: map[string]*huma.Response{strconv.Itoa(p.status): s.describeReply(p)},
	}
	if p.events {
		op.Responses["200"] = s.describeReply(proxied{reply: replyEvents})
	}
	switch p.body.(type) {
	case nil:
	case rawBody:
		op.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
			"application/octet-stream": {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}},
		}}
	default:
		op.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
			"application/json": {Schema: s.refTo(p.body)},
		}}
	}
	return op
}

func (s *Server) describeReply(p proxied) *huma.Response {
	switch p.reply {
	case replyJSON:
		return &huma.Response{
			Description: http.StatusText(p.status),
			Content:     map[string]*huma.MediaType{"application/json": {Schema: s.refTo(p.result)}},
		}
	case replyEvents:
		return s.eventStream("OutputEvent", s.refTo(innerdock.OutputEvent{}), "started", "stdout", "stderr", "dropped", "exit")
	case replyText:
		return textResponse("text/plain", http.StatusText(p.status))
	case replyBytes:
		response := textResponse("application/octet-stream", http.StatusText(p.status))
		response.Content["application/octet-stream"].Schema.Format = "binary"
		if strings.HasPrefix(p.path, "/processes/") {
			response.Headers = map[string]*huma.Param{innerdock.OutputHeader: {
				Description: "Offset of the first byte sent.", Schema: &huma.Schema{Type: huma.TypeInteger},
			}}
		}
		return response
	default:
		return &huma.Response{Description: http.StatusText(http.StatusNoContent)}
	}
}

// proxy passes one request to the sandbox's agent and what it may answer back.
func (s *Server) proxy(p proxied, w http.ResponseWriter, r *http.Request) {
	ctx, release := r.Context(), func() {}
	if p.events && acceptsEvents(r) {
		p.reply, p.status = replyEvents, http.StatusOK
	}
	if p.reply == replyEvents {
		ctx, release = s.untilDrain(ctx)
	}
	defer release()
	request, err := agentRequest(ctx, p, w, r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	tenant, id := principalOf(ctx).Tenant, r.PathValue("id")
	transport := s.agentTransport(tenant, id)
	defer transport.CloseIdleConnections()
	response, err := transport.RoundTrip(request)
	if err != nil {
		s.fail(w, r, s.whyUnreachable(ctx, tenant, id, err))
		return
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode/100 != 2 {
		s.fail(w, r, agentError(response))
		return
	}
	s.relay(p, w, r, response)
}

func acceptsEvents(r *http.Request) bool {
	return strings.Contains(r.Header.Get("Accept"), "text/event-stream")
}

// agentTransport makes one connection for one request: nothing of one tenant's
// can ever meet another's.
func (s *Server) agentTransport(tenant, id string) *http.Transport {
	return &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return s.backend.DialAgent(ctx, tenant, id)
		},
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxReplyHeaders,
	}
}

// agentRequest is r as the agent gets it: the allowed path, parameters and two headers.
func agentRequest(ctx context.Context, p proxied, w http.ResponseWriter, r *http.Request) (*http.Request, error) {
	path := p.path
	if strings.Contains(path, "{pid}") {
		pid, err := strconv.ParseUint(r.PathValue("pid"), 10, 31)
		if err != nil {
			return nil, innerdock.Errorf(innerdock.CodeInvalid, "pid: %q is not a process ID", r.PathValue("pid"))
		}
		path = strings.Replace(path, "{pid}", strconv.FormatUint(pid, 10), 1)
	}
	values, err := allowedQuery(p, r)
	if err != nil {
		return nil, err
	}
	target := url.URL{Scheme: "http", Host: "agent", Path: path, RawQuery: values.Encode()}
	request, err := http.NewRequestWithContext(ctx, p.method, target.String(), nil)
	if err != nil {
		return nil, innerdock.Internal(err, "making a request to the sandbox's agent")
	}
	if p.body != nil && r.ContentLength != 0 {
		limit := p.maxBody
		if limit == 0 {
			limit = maxJSON
		}
		if r.ContentLength > limit {
			return nil, tooLargeError(limit)
		}
		request.Body, request.ContentLength = http.MaxBytesReader(w, r.Body, limit), r.ContentLength
	}
	for _, name := range []string{"Accept", "Content-Type"} {
		if value := r.Header.Get(name); value != "" {
			request.Header.Set(name, value)
		}
	}
	return request, nil
}

func allowedQuery(p proxied, r *http.Request) (url.Values, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, innerdock.Errorf(innerdock.CodeInvalid, "the query cannot be read: %w", err)
	}
	for name := range values {
		if !slices.ContainsFunc(p.query, func(q *huma.Param) bool { return q.Name == name }) {
			return nil, innerdock.Errorf(innerdock.CodeInvalid, "%s: unknown query parameter", name)
		}
	}
	for _, q := range p.query {
		if q.Required && values.Get(q.Name) == "" {
			return nil, innerdock.Errorf(innerdock.CodeInvalid, "%s: required query parameter is missing", q.Name)
		}
	}
	return values, nil
}

// whyUnreachable explains a failed round trip by the state of the sandbox.
func (s *Server) whyUnreachable(ctx context.Context, tenant, id string, err error) error {
	var known *innerdock.Error
	if errors.As(err, &known) {
		return known
	}
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return tooLargeError(tooLarge.Limit)
	}
	sandbox, lookupErr := s.backend.Sandbox(context.WithoutCancel(ctx), tenant, id)
	if lookupErr != nil {
		return lookupErr
	}
	if sandbox.State.Ended() || sandbox.State == innerdock.StateTerminating {
		return endedError(sandbox)
	}
	return innerdock.Errorf(innerdock.CodeUnavailable,
		"the agent of sandbox %s does not answer; try again, or see `innerdock logs %s`", sandbox.ID, sandbox.ID)
}

func endedError(sandbox innerdock.Sandbox) error {
	return innerdock.Errorf(innerdock.CodeSandboxTerminated, "sandbox %s is %s: %s", sandbox.ID, sandbox.State, reasonOf(sandbox))
}

func reasonOf(sandbox innerdock.Sandbox) string {
	if sandbox.Reason == "" {
		return "create a new one"
	}
	return sandbox.Reason
}

// agentCodes are the errors that an agent may answer with; others would speak
// for the server.
var agentCodes = []innerdock.Code{
	innerdock.CodeInvalid, innerdock.CodeNotFound, innerdock.CodeConflict, innerdock.CodeTooLarge,
	innerdock.CodeExhausted, innerdock.CodeUnsupported, innerdock.CodeTimeout, innerdock.CodeUnavailable,
	innerdock.CodeForbidden, innerdock.CodeInternal, innerdock.CodeCommandNotFound, innerdock.CodeDockerDisabled,
	innerdock.CodeDockerNotInstalled, innerdock.CodeDockerFailed, innerdock.CodeDockerTimeout,
}

// agentError is the Error in an agent's reply.
func agentError(response *http.Response) error {
	content, err := io.ReadAll(io.LimitReader(response.Body, maxReplyError))
	shown := &innerdock.Error{}
	if err != nil || json.Unmarshal(content, shown) != nil || !slices.Contains(agentCodes, shown.Code) {
		return innerdock.Errorf(innerdock.CodeUnavailable, "the sandbox's agent answered with status %d and no reason", response.StatusCode)
	}
	return &innerdock.Error{Code: shown.Code, Message: shown.Message}
}

// relay sends the client what the agent answered, of the kind that p allows.
func (s *Server) relay(p proxied, w http.ResponseWriter, r *http.Request, response *http.Response) {
	switch p.reply {
	case replyNone:
		w.WriteHeader(http.StatusNoContent)
	case replyJSON:
		s.relayJSON(p, w, r, response)
	case replyText:
		s.relayStream(w, response, p.status, "text/plain; charset=utf-8")
	case replyEvents:
		s.relayStream(w, response, p.status, "text/event-stream")
	default:
		if offset, err := strconv.ParseUint(response.Header.Get(innerdock.OutputHeader), 10, 63); err == nil {
			w.Header().Set(innerdock.OutputHeader, strconv.FormatUint(offset, 10))
		}
		s.relayStream(w, response, p.status, "application/octet-stream")
	}
}

func (s *Server) relayJSON(p proxied, w http.ResponseWriter, r *http.Request, response *http.Response) {
	content, err := io.ReadAll(io.LimitReader(response.Body, maxReplyJSON+1))
	switch {
	case err != nil:
		s.fail(w, r, s.whyUnreachable(r.Context(), principalOf(r.Context()).Tenant, r.PathValue("id"), err))
	case len(content) > maxReplyJSON:
		s.fail(w, r, innerdock.Errorf(innerdock.CodeTooLarge, "the sandbox's answer is larger than %d MiB", maxReplyJSON>>20))
	case !json.Valid(content):
		s.fail(w, r, innerdock.Errorf(innerdock.CodeUnavailable, "the sandbox's agent answered with something that is not JSON"))
	default:
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(p.status)
		_, _ = w.Write(content)
	}
}

// relayStream copies the body as it comes. A body that breaks off breaks the
// reply off as well, so that the client does not take it for the whole.
func (s *Server) relayStream(w http.ResponseWriter, response *http.Response, status int, contentType string) {
	w.Header().Set("Content-Type", contentType)
	if response.ContentLength >= 0 {
		w.Header().Set("Content-Length", strconv.FormatInt(response.ContentLength, 10))
	}
	w.WriteHeader(status)
	flush := http.NewResponseController(w).Flush
	_ = flush()
	buffer := make([]byte, copyBuffer)
	for {
		n, err := response.Body.Read(buffer)
		if n > 0 {
			if _, werr := w.Write(buffer[:n]); werr != nil {
				return // the client has left
			}
			_ = flush()
		}
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			panic(http.ErrAbortHandler)
		}
	}
}
