package e2e

import (
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/innerdock/innerdock"
)

// A sandbox reaches the gateway's services, and nothing else that is near.
func TestASandboxReachesNeitherHostNorNeighbour(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	var hits atomic.Int64
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			hits.Add(1)
			_ = conn.Close()
		}
	}()
	defer func() { _ = listener.Close(); <-served }()
	port := listener.Addr().(*net.TCPAddr).Port

	one := shared.createWithDocker(t, innerdock.SandboxSpec{})
	two := shared.create(t, python, innerdock.SandboxSpec{})
	server, err := shared.client.StartProcess(t.Context(), two.ID, innerdock.ProcessSpec{
		Args: []string{"python3", "-m", "http.server", fmt.Sprint(port), "--bind", "0.0.0.0"}})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if got := shared.exec(t, two.ID, "python3", "-c", fmt.Sprintf("import urllib.request; urllib.request.urlopen('http://127.0.0.1:%d')", port)); got.code != 0 {
			return fmt.Errorf("the neighbour's service itself answers %+v", got)
		}
		return nil
	})
	probe := func(address string) string {
		t.Helper()
		return strings.TrimSpace(shared.sh(t, one.ID, fmt.Sprintf(`python3 -c '
import socket, sys
try:
    socket.create_connection(("%s", %d), timeout=1).close(); print("open")
except OSError: print("closed")'`, address, port)))
	}
	gateway := strings.Fields(shared.sh(t, one.ID, "cat /etc/resolv.conf"))[1]
	targets := []string{two.Address, gateway, "169.254.169.254"}
	targets = append(targets, hostAddresses(t)...)
	for _, address := range targets {
		if got := probe(address); got != "closed" {
			t.Errorf("%s:%d is %s from a sandbox", address, port, got)
		}
	}
	inner := shared.exec(t, one.ID, "docker", "run", "--rm", "busybox:latest", "wget", "-T", "1", "-qO-", fmt.Sprintf("http://%s:%d/", two.Address, port))
	if inner.code == 0 {
		t.Errorf("a container reached another sandbox: %s", inner.stdout)
	}
	if hits.Load() != 0 {
		t.Errorf("%d connections reached the host", hits.Load())
	}
	shared.sh(t, one.ID, fmt.Sprintf("curl -sf http://%s:5000/v2/", gateway)) // offered on purpose
	if err := shared.client.Signal(t.Context(), two.ID, server.PID, "SIGKILL"); err != nil {
		t.Error(err)
	}
}

// hostAddresses are the IPv4 addresses of the machine, loopback excepted.
func hostAddresses(t *testing.T) []string {
	t.Helper()
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, address := range addresses {
		if prefix, ok := address.(*net.IPNet); ok && prefix.IP.To4() != nil && !prefix.IP.IsLoopback() {
			found = append(found, prefix.IP.String())
		}
	}
	return found
}

func TestWithoutDockerThereAreNoRawSockets(t *testing.T) {
	t.Parallel()
	sandbox := shared.create(t, python, innerdock.SandboxSpec{})
	got := shared.exec(t, sandbox.ID, "python3", "-c", "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)")
	if got.code == 0 || !strings.Contains(got.stderr, "PermissionError") {
		t.Errorf("a raw socket: %+v", got)
	}
}
