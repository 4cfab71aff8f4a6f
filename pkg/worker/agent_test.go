package worker

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/innerdock/innerdock"
)

func TestAnAgentsErrorsKeepTheirCodeAndAreCapped(t *testing.T) {
	reply := `{"code":"command_not_found","message":"no such command"}`
	client := agentOf(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(422)
		_, _ = io.WriteString(w, reply)
	})
	_, err := client.do(t.Context(), http.MethodGet, "/", nil, nil)
	if innerdock.CodeOf(err) != innerdock.CodeCommandNotFound {
		t.Fatalf("got %v", err)
	}
	reply = strings.Repeat("<html>", maxReply)
	_, err = client.do(t.Context(), http.MethodGet, "/", nil, nil)
	if innerdock.CodeOf(err) != innerdock.CodeUnavailable || len(err.Error()) > 200 {
		t.Fatalf("got %.300v", err)
	}
}

// agentOf is a client of an agent that answers like handler.
func agentOf(t *testing.T, handler http.HandlerFunc) agentClient {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	to := server.Listener.Addr().String()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", to)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return agentClient{http: &http.Client{Transport: transport}}
}
