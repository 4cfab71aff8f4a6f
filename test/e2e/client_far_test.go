package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/innerdock/innerdock"
)

// The same over TLS, with a key, through a forwarder.
func TestDockerClientsRemotely(t *testing.T) {
	t.Parallel()
	r := newFarServer(t, 227)
	sandbox := r.createWithDocker(t, innerdock.SandboxSpec{CPU: 2, Memory: "3Gi", Name: "far"})
	d := newDockerClient(t, r.server, sandbox)
	got := r.far(t, r.key, "docker-host", "far")
	if got.code != 0 || !strings.Contains(got.stdout, "DOCKER_HOST='unix://"+r.dir+"/innerdock/"+sandbox.ID+".sock'") {
		t.Fatalf("%+v", got)
	}
	if again := r.far(t, r.key, "docker-host", "far"); again.stdout != got.stdout {
		t.Errorf("the second time it says %+v", again)
	}
	d.use(got.stdout)
	if !strings.HasPrefix(d.address, "127.") || d.address == "127.0.0.1" {
		t.Errorf("published ports are at %s", d.address)
	}
	d.checkAll()
	t.Run("a port that is taken", func(t *testing.T) {
		taken, err := net.Listen("tcp", d.address+":18099")
		if err != nil {
			t.Fatal(err)
		}
		defer taken.Close()
		d.run("", "run", "-d", "--rm", "--name", "taken", "-p", "18099:80", "nginx:latest")
		log, err := os.ReadFile(filepath.Join(r.dir, "innerdock", sandbox.ID+".log"))
		if err != nil || !strings.Contains(string(log), "port 18099 is not forwarded") || !strings.Contains(string(log), "--publish-address") {
			t.Errorf("the forwarder's log is %q, %v", log, err)
		}
		d.run("", "rm", "-f", "taken")
	})
	t.Run("keys", func(t *testing.T) {
		for key, word := range map[string]string{"idk_" + strings.Repeat("A", 43): "key", r.other: "no sandbox"} {
			if got := r.far(t, key, "docker-host", sandbox.ID); got.code != 125 || got.stdout != "" || !strings.Contains(got.stderr, word) {
				t.Errorf("%+v does not say %q", got, word)
			}
		}
	})
	t.Run("a port of UDP", func(t *testing.T) {
		d.run("", "run", "-d", "--rm", "--name", "datagrams", "-p", "18053:53/udp", "busybox:latest", "sleep", "1000")
		log, err := os.ReadFile(filepath.Join(r.dir, "innerdock", sandbox.ID+".log"))
		if err != nil || !strings.Contains(string(log), "port 18053/udp is not forwarded") {
			t.Errorf("the forwarder's log is %q, %v", log, err)
		}
		d.run("", "rm", "-f", "datagrams")
	})
	t.Run("--unset", func(t *testing.T) {
		got := r.far(t, r.key, "docker-host", "--unset", "far")
		if got.code != 0 || !strings.Contains(got.stdout, "unset DOCKER_HOST\n") {
			t.Errorf("%+v", got)
		}
		r.wantNoForwarder(t)
	})
	t.Run("a context", func(t *testing.T) {
		d.t = t
		d.reach = r.reach(r.key)
		d.checkContext()
		d.reach = r.reach(r.other)
		if got := d.contexts("far"); got.code != 125 || !strings.Contains(got.stderr, "no sandbox") {
			t.Errorf("with the key of another tenant: %+v", got)
		}
		d.reach = r.reach(r.key)
		if got := d.contexts("--rm", "far"); got.code != 0 {
			t.Errorf("%+v", got)
		}
		r.wantNoForwarder(t)
		if got := d.run("", "context", "ls", "--format", "{{.Name}}"); strings.Contains(got, "far") {
			t.Errorf("the contexts are still %q", got)
		}
	})
	t.Run("the end of the sandbox", func(t *testing.T) {
		cmd := r.command(t.Context(), "docker-host", "--foreground", "--publish-address", "127.0.0.1", "far")
		cmd.Env = append(cmd.Env, "XDG_RUNTIME_DIR="+r.dir)
		var said bytes.Buffer
		cmd.Stderr = &said
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 1)); err != nil { // it listens
			t.Fatal(err)
		}
		if _, err := r.client.Terminate(t.Context(), sandbox.ID); err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, out)
		if err := cmd.Wait(); err != nil {
			t.Errorf("the forwarder ends with %v: %s", err, said.String())
		}
	})
}

// farServer is a server that is reached over TLS.
type farServer struct {
	*server
	cert       string // the file of its certificate
	key, other string // of two tenants
}

func newFarServer(t *testing.T, second byte) *farServer {
	t.Helper()
	s, err := newServer(second)
	if err != nil {
		t.Fatal(err)
	}
	cert, key := certificate(t, netip.MustParseAddrPort(s.address()).Addr())
	s.flags = append([]string{"--listen", s.address(), "--tls-cert", cert, "--tls-key", key}, seededOnly...)
	s.startFor(t)
	r := &farServer{server: s, cert: cert}
	if err := r.seed(t.Context()); err != nil {
		t.Fatal(err)
	}
	for tenant, key := range map[string]*string{innerdock.DefaultTenant: &r.key, "other": &r.other} {
		made, err := r.client.CreateKey(t.Context(), innerdock.KeySpec{Tenant: tenant})
		if err != nil {
			t.Fatal(err)
		}
		*key = made.Key
	}
	return r
}

// reach is the environment of an innerdock command on another machine.
func (r *farServer) reach(key string) []string {
	return []string{"INNERDOCK_HOST=https://" + r.address(), "INNERDOCK_API_KEY=" + key, "XDG_RUNTIME_DIR=" + r.dir, "SSL_CERT_FILE=" + r.cert}
}

// far runs the innerdock command as on another machine.
func (r *farServer) far(t *testing.T, key string, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), binary, args...)
	cmd.Env = append(os.Environ(), r.reach(key)...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	_ = cmd.Run() // its code is looked at
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// wantNoForwarder holds a forwarder that was stopped to leaving nothing.
func (r *farServer) wantNoForwarder(t *testing.T) {
	t.Helper()
	if left, _ := os.ReadDir(filepath.Join(r.dir, "innerdock")); len(left) > 0 {
		t.Errorf("the forwarder left %v", left)
	}
}

// certificate makes one for an address, and its key.
func certificate(t *testing.T, address netip.Addr) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true,
		BasicConstraintsValid: true, IPAddresses: []net.IP{address.AsSlice()}}
	public, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: public}, key: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}
