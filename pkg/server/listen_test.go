package server_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/server"
	"github.com/innerdock/innerdock/test/freeport"
)

func TestSocket(t *testing.T) {
	r := newRig(t)
	info, err := os.Stat(r.socket)
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Fatalf("socket: %v, %v", info, err)
	}
	// A second server must not take a living one's place.
	err = r.server().Serve(t.Context(), t.Context(), server.Listeners{Socket: r.socket}, nil)
	wantCode(t, err, innerdock.CodeConflict)
	if _, err := r.client.Version(t.Context()); err != nil {
		t.Fatal("the first one is hurt:", err)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(filepath.Dir(r.socket)); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	_, err = r.client.Version(t.Context())
	wantCode(t, err, innerdock.CodeUnavailable)
	if !strings.Contains(err.Error(), "innerdock server") || !strings.Contains(err.Error(), "make up") {
		t.Errorf("no word on how to start it: %v", err)
	}
	// A killed server's socket is replaced.
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: r.socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	_ = dead.Close()
	r.serve(listenersOf(r))
	if _, err := r.client.Version(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestSocketThatIsAFile(t *testing.T) {
	r := newRig(t)
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := r.server().Serve(t.Context(), t.Context(), server.Listeners{Socket: path}, nil)
	wantCode(t, err, innerdock.CodeConflict)
	if content, _ := os.ReadFile(path); string(content) != "precious" {
		t.Error("it is gone")
	}
}

func TestTCPNeedsTLS(t *testing.T) {
	r := newRig(t)
	for _, address := range []string{":0", "0.0.0.0:0", "[::]:0", "nonsense", "127.0.0.1:x"} {
		err := r.server().Serve(t.Context(), t.Context(), server.Listeners{TCP: []string{address}}, nil)
		wantCode(t, err, innerdock.CodeInvalid)
	}
}

func TestTLS(t *testing.T) {
	r := newRig(t)
	cert, key, pool := certificate(t, "dock.test")
	where := server.Listeners{TCP: []string{"127.0.0.1:0"}, TLSCert: cert, TLSKey: key}
	where.TCP[0] = freeport.Address(t)
	r.serve(where)
	apiKey, _, err := r.keys.CreateKey(t.Context(), "", "default")
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", where.TCP[0])
		}}
	defer transport.CloseIdleConnections()
	for host, status := range map[string]int{"dock.test": 200, "evil.test": 403} {
		request, err := http.NewRequestWithContext(t.Context(), "GET", "https://dock.test/v1/version", nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Host = host
		request.Header.Set("Authorization", "Bearer "+apiKey)
		response, err := (&http.Client{Transport: transport}).Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != status || response.ProtoMajor != 2 {
			t.Errorf("%s: %s over %s", host, response.Status, response.Proto)
		}
	}
}

// certificate makes a self-signed one.
func certificate(t *testing.T, name string) (certFile, keyFile string, pool *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, content []byte) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool = x509.NewCertPool()
	pool.AddCert(parsed)
	return write("cert.pem", "CERTIFICATE", der), write("key.pem", "PRIVATE KEY", private), pool
}

// A stop lets short requests finish, sends long polls and streams home at once,
// and a server that comes back finds its clients again.
func TestRestartDuringExec(t *testing.T) {
	r := newRig(t)
	id := r.create(innerdock.SandboxSpec{}).ID
	polled := make(chan error, 1)
	go func() {
		_, err := r.connect("unix://"+r.socket, "").Wait(t.Context(), id)
		polled <- err
	}()
	started := make(chan struct{})
	type result struct {
		process innerdock.Process
		out     string
		err     error
	}
	finished := make(chan result, 1)
	go func() {
		var out bytes.Buffer
		process, err := r.client.Exec(t.Context(), id, shell("echo one; until [ -e go ]; do sleep 0.02; done; echo two"),
			innerdock.Streams{Stdout: &out, Started: func(innerdock.Process) { close(started) }})
		finished <- result{process, out.String(), err}
	}()
	<-started
	before := time.Now()
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(before); took > 20*time.Second {
		t.Errorf("the stop took %s", took)
	}
	<-polled // answered with the state by then, and then there was no server
	if _, err := os.Create(filepath.Join(r.backend.Dir(id), innerdock.WorkspaceDir, "go")); err != nil {
		t.Fatal(err)
	}
	r.serve(listenersOf(r))
	end := <-finished
	if end.err != nil || end.out != "one\ntwo\n" || *end.process.ExitCode != 0 {
		t.Errorf("%+v", end)
	}
}

// The second signal does not wait for anybody.
func TestAbort(t *testing.T) {
	r := newRig(t)
	ctx, stop := context.WithCancel(t.Context())
	abort, cut := context.WithCancel(t.Context())
	where := server.Listeners{Socket: filepath.Join(t.TempDir(), "s")}
	done, ready := make(chan error, 1), make(chan struct{})
	go func() { done <- r.server().Serve(ctx, abort, where, func() { close(ready) }) }()
	<-ready
	id := r.create(innerdock.SandboxSpec{}).ID
	waiting := make(chan error, 1)
	go func() {
		conn, err := net.Dial("unix", where.Socket)
		if err != nil {
			waiting <- err
			return
		}
		defer conn.Close()
		body := `{"args":["sleep","30"]}`
		_, _ = io.WriteString(conn, "POST /v1/sandboxes/"+id+"/processes?wait=true HTTP/1.1\r\nHost: x\r\nContent-Length: 23\r\n\r\n"+body)
		_, err = bufio.NewReader(conn).ReadByte()
		waiting <- err
	}()
	eventually(t, "the process runs", func() bool {
		processes, err := r.client.Processes(t.Context(), id)
		return err == nil && len(processes) == 1
	})
	stop()
	select {
	case <-done:
		t.Fatal("it did not wait for the request")
	case <-time.After(200 * time.Millisecond):
	}
	cut()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := <-waiting; err == nil {
		t.Error("the request was answered")
	}
}

// Requests that never end are ended.
func TestSlowHeaders(t *testing.T) {
	r := newRig(t)
	conn, err := net.Dial("tcp", r.tcp)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "GET /v1/version HTTP/1.1\r\nX: "+strings.Repeat("x", 80<<10))
	_ = conn.SetReadDeadline(time.Now().Add(15 * time.Second))
	answer, err := io.ReadAll(conn)
	if err != nil || !bytes.Contains(answer, []byte("431")) {
		t.Errorf("%q, %v", answer, err)
	}
}
